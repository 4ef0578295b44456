"""The HTTP API as a caller meets it: predictions, health, documentation, and every way to get it wrong."""

import asyncio
import math
from typing import Any

import httpx
import pytest

from tests.contract.conftest import MODELS, QUEUES


def path_of(model: str) -> str:
    return f"/v1/models/{model}/predict"


def predict(http: httpx.Client, model: str, *instances: Any) -> httpx.Response:
    return http.post(path_of(model), json={"instances": list(instances)})


def same(one: Any, other: Any) -> bool:
    """Equal but for the last digits of numbers: batches of another size round otherwise."""
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=0.05, abs_tol=0.02)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def degraded(response: httpx.Response) -> bool:
    """Whether the model read less than it should have, in a burst say: what it then predicts is something else."""
    return bool(response.json().get("degraded"))


def assert_problem(response: httpx.Response, status: int, kind: str, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:problem-type:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["request_id"] == response.headers["x-request-id"]
    for word in words:
        assert word in problem["detail"]
    assert "Traceback" not in response.text


def test_one_instance_gets_one_prediction(http: httpx.Client, model: str, example: dict[str, Any]) -> None:
    response = predict(http, model, example)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["model"] == model
    assert body["revision"]
    assert len(body["predictions"]) == 1
    assert body["truncated"] == []


def test_many_instances_get_their_predictions_in_order(
    http: httpx.Client, model: str, example: dict[str, Any], long_example: dict[str, Any]
) -> None:
    instances = [example, long_example, example]
    response = predict(http, model, *instances)
    if response.status_code == 422:
        pytest.skip("this model refuses long texts")  # the order is then tested by the concurrent requests
    together = response.json()["predictions"]
    alone = [predict(http, model, instance) for instance in instances]
    if not any(map(degraded, [response, *alone])):
        assert same(together, [each.json()["predictions"][0] for each in alone])
    assert together[0] != together[1]
    if "documents" not in response.json():  # they make what is read of two texts more alike
        assert not same(together[0], together[1])


def test_sixty_four_callers_at_once_each_get_their_own_answer(url: str, model: str, example: dict[str, Any]) -> None:
    field = next(key for key, value in example.items() if isinstance(value, str))
    instances = [{**example, field: " ".join([example[field]] * (1 + n % 3))} for n in range(64)]

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            bodies = [{"instances": [instance]} for instance in instances]
            return await asyncio.gather(*(client.post(path_of(model), json=body) for body in bodies))

    responses = asyncio.run(all_at_once())
    assert {response.status_code for response in responses} == {200}
    with httpx.Client(base_url=url, timeout=30) as client:
        alone = [predict(client, model, instance) for instance in instances[:3]]
    for position, response in enumerate(responses):
        if not degraded(response) and not degraded(alone[position % 3]):
            assert same(response.json()["predictions"], alone[position % 3].json()["predictions"])


@pytest.mark.parametrize(
    "text", ["naïve café", "日本語のテキスト", "🙂🙃" * 20, "שלום", "e\u0301", "a\u0000b", " \n\t ."]
)
def test_any_unicode_text_is_answered(http: httpx.Client, model: str, example: dict[str, Any], text: str) -> None:
    field = next(key for key, value in example.items() if isinstance(value, str))
    response = predict(http, model, {**example, field: text})
    assert response.status_code == 200, response.text


def test_a_long_text_is_cut_and_reported_or_refused(
    http: httpx.Client, model: str, example: dict[str, Any], long_example: dict[str, Any]
) -> None:
    response = predict(http, model, example, long_example)
    if response.status_code == 200:
        assert response.json()["truncated"] == [1]
    else:
        assert_problem(response, 422, "text-too-long", "instances 1", "tokens")


def test_a_request_id_comes_back_once_and_stands_in_the_body(
    http: httpx.Client, model: str, example: dict[str, Any]
) -> None:
    headers = {"x-request-id": "from-the-caller-1"}
    response = http.post(path_of(model), json={"instances": [example]}, headers=headers)
    assert response.headers.get_list("x-request-id") == ["from-the-caller-1"]
    assert response.json()["request_id"] == "from-the-caller-1"


def test_a_request_without_an_id_gets_one(http: httpx.Client, model: str, example: dict[str, Any]) -> None:
    ids = {predict(http, model, example).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_body_that_is_not_json_is_refused(http: httpx.Client, model: str) -> None:
    headers = {"content-type": "application/json"}
    assert_problem(http.post(path_of(model), content=b"{'no'", headers=headers), 400, "not-json")


def test_a_body_declared_as_a_form_is_refused(http: httpx.Client, model: str) -> None:
    assert_problem(http.post(path_of(model), data={"a": "b"}), 415, "not-json-type", "application/json")


def test_a_body_that_is_wrong_throughout_is_refused_at_its_first_fault(http: httpx.Client, model: str) -> None:
    response = predict(http, model, *[0] * 100_000)
    assert_problem(response, 422, "invalid-request", "instances.0")
    assert len(response.json()["errors"]) == 1


def test_a_text_so_long_that_a_thread_reads_it_is_cut_and_reported_or_refused(
    http: httpx.Client, model: str, example: dict[str, Any]
) -> None:
    field = next(key for key, value in example.items() if isinstance(value, str))
    response = predict(http, model, {**example, field: "late " * 15_000})
    if response.status_code == 200:
        assert response.json()["truncated"] == [0]
    else:
        assert_problem(response, 422, "text-too-long", "instances 0", "tokens")


def test_an_empty_batch_is_refused(http: httpx.Client, model: str) -> None:
    assert_problem(predict(http, model), 422, "invalid-request", "instances", "at least 1")


@pytest.mark.parametrize("instance", [5, "text", None, [], {}])
def test_an_instance_of_the_wrong_shape_is_refused_and_located(
    http: httpx.Client, model: str, example: dict[str, Any], instance: Any
) -> None:
    assert_problem(predict(http, model, example, instance), 422, "invalid-request", "instances.1")


def test_a_misspelt_key_is_refused_not_ignored(http: httpx.Client, model: str, example: dict[str, Any]) -> None:
    body = {"instances": [example], "instnaces": []}
    assert_problem(http.post(path_of(model), json=body), 422, "invalid-request", "instnaces")


@pytest.mark.parametrize("body", [[], 3, "x", {"instances": {}}, {"instances": "x"}, {}])
def test_a_body_of_the_wrong_type_is_refused(http: httpx.Client, model: str, body: Any) -> None:
    assert_problem(http.post(path_of(model), json=body), 422, "invalid-request")


def test_a_body_over_four_mebibytes_is_refused(http: httpx.Client, model: str, example: dict[str, Any]) -> None:
    response = http.post(path_of(model), content=b" " * (4 * 2**20 + 1), headers={"content-type": "application/json"})
    assert_problem(response, 413, "body-too-large", "4194304")


def test_more_instances_than_the_queue_takes_are_refused(
    http: httpx.Client, model: str, example: dict[str, Any]
) -> None:
    number = QUEUES[model] + 1
    assert_problem(predict(http, model, *[example] * number), 422, "too-many-instances", str(number))


def test_an_unknown_model_is_named_with_those_that_exist(http: httpx.Client) -> None:
    response = http.post("/v1/models/no-such-model/predict", json={"instances": []})
    assert_problem(response, 404, "unknown-model", "no-such-model", *MODELS)


def test_an_unknown_path_is_a_problem_too(http: httpx.Client) -> None:
    assert_problem(http.get("/no/such/path"), 404, "not-found", "/no/such/path")


def test_a_wrong_method_is_a_problem_too(http: httpx.Client, model: str) -> None:
    assert_problem(http.get(path_of(model)), 405, "method-not-allowed")


def test_the_service_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").status_code == 200


def test_the_list_of_models_names_each_with_its_revision(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()["models"]
    assert [model["name"] for model in listed] == MODELS
    assert all(model["ready"] and model["revision"] for model in listed)


def test_the_documentation_describes_every_model(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    document = http.get("/openapi.json").json()
    for model in MODELS:
        operation = document["paths"][path_of(model)]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        assert body["properties"]["instances"]["items"]["properties"]
        assert {"200", "400", "413", "415", "422", "429", "504"} <= operation["responses"].keys()
