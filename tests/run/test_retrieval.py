"""A service beside a vector database that stops, hangs, crawls, refuses, limits, or holds another model's vectors.

Predictions go on without documents, no later than the deadline; a search says in words what is wrong; both come back.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from tests.database import Database, answering, running_database
from tests.run.conftest import Render
from tests.run.light import put_light_embedder, put_light_model
from tests.run.service import environment, python_of, wait_for
from tests.run.test_features import started
from tests.store import SlowProxy
from tests.variants import second_model

REQUESTS = 200
ROUNDS = 5
RECOVERY_S = 10
PREDICT = "/v1/models/light/predict"
BODY = {"instances": [{"text": "a text"}]}
QUERY = {"query": "a text", "limit": 2}


def run_job(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a job of the render in `folder` as a person would."""
    return subprocess.run(
        [str(python_of(folder)), "-m", *arguments],
        cwd=folder,
        env=environment(folder, **env),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


class Stage:
    """A started service with its database behind a proxy, and the deadline that the service keeps."""

    def __init__(self, database: Database, proxy: SlowProxy, folder: Path) -> None:
        self.url = ""
        self.database, self.proxy, self.folder = database, proxy, folder
        self.deadline_ms = yaml.safe_load((folder / "config/retrieval.yaml").read_text())["deadline_ms"]
        self.fault = ExitStack()

    def fill(self) -> None:
        done = run_job(self.folder, "jobs.index_documents", "jobs/example_documents.jsonl", **self.database.env())
        assert done.returncode == 0, done.stderr

    def ask(self, client: httpx.Client) -> tuple[float, httpx.Response]:
        started = time.perf_counter()
        response = client.post(PREDICT, json=BODY)
        return (time.perf_counter() - started) * 1e3, response

    def load(self) -> tuple[float, set[int], set[str]]:
        """p99 in ms of REQUESTS predictions in a row, their statuses, and what was degraded."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            self.ask(client)
            answers = [self.ask(client) for _ in range(REQUESTS)]
        statuses = {response.status_code for _, response in answers}
        degraded = {each for _, response in answers for each in response.json()["degraded"]}
        return statistics.quantiles([ms for ms, _ in answers], n=100)[98], statuses, degraded

    def search(self) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/search", json=QUERY, timeout=30)

    def healthy(self) -> bool:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            return not self.ask(client)[1].json()["degraded"] and self.search().status_code == 200


@pytest.fixture(
    scope="module",
    params=[("container", "qdrant_cloud"), ("container", "pinecone"), ("ray", "qdrant_cloud")],
    ids="-".join,
)
def stage(request: pytest.FixtureRequest, render: Render) -> Iterator[Stage]:
    serving, vector_db = request.param
    second = second_model(name="light")
    folder = render(serving=serving, vector_db=vector_db, more_models=[second])
    put_light_embedder(folder, "minilm")
    put_light_model(folder, "light")
    with running_database(folder) as database, SlowProxy(database.port).running() as proxy:
        made = Stage(database, proxy, folder)
        made.fill()
        with started(serving, folder, database.env(proxy.port), request) as made.url:
            wait_for("documents are read", made.healthy, RECOVERY_S)
            yield made


Mend = Callable[[], None]


def stop(stage: Stage) -> Mend:
    stage.database.stop()
    return lambda: begin_anew(stage)


def begin_anew(stage: Stage) -> None:
    stage.database.stop()
    stage.database.start()
    stage.fill()


def hang(stage: Stage) -> Mend:
    stage.database.pause()
    return stage.database.resume


def crawl(stage: Stage) -> Mend:
    """Ten times what a healthy search takes here."""
    stage.proxy.delay_s = 0.03

    def mend() -> None:
        stage.proxy.delay_s = 0.0

    return mend


def refuse(stage: Stage) -> Mend:
    stage.database.stop()
    stage.database.start(key="another")
    return lambda: begin_anew(stage)


def limit(stage: Stage) -> Mend:
    stage.database.stop()
    stage.fault.enter_context(answering(stage.database.port, 429))

    def mend() -> None:
        stage.fault.close()
        begin_anew(stage)

    return mend


def mistake(stage: Stage) -> Mend:
    """The alias leads to vectors of another length."""
    stage.database.stop()
    stage.database.start()
    code = """
import asyncio
from service.runtime.retrieval import Document
from service.runtime.vector_index import IndexWriter, load_retrieval_settings
async def main():
    settings = load_retrieval_settings()
    writer = IndexWriter(settings)
    await writer.begin(settings.alias + "-wrong", 3, {})
    await writer.upsert([Document(id="a", text="a")], [[1.0, 0.0, 0.0]])
    await writer.serve()
    await writer.close()
asyncio.run(main())
"""
    env = environment(stage.folder, **stage.database.env())
    subprocess.run([str(python_of(stage.folder)), "-c", code], cwd=stage.folder, env=env, check=True, timeout=60)
    return lambda: begin_anew(stage)


@pytest.mark.parametrize(
    ("fault", "problems"),
    [
        (stop, {"search-unavailable"}),
        (hang, {"search-timeout", "search-unavailable"}),
        (crawl, set()),
        (refuse, {"search-unavailable"}),
        # Pinecone's own client asks again, until the deadline.
        (limit, {"search-unavailable", "search-timeout"}),
        (mistake, {"index-mismatch"}),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_fault_of_the_database_costs_no_prediction_and_at_most_the_deadline(
    stage: Stage, fault: Callable[[Stage], Mend], problems: set[str]
) -> None:
    """No prediction fails in any round, and every search says what is wrong. A machine that stops for a moment makes a
    good database late, too: one round of some must show it searched before and after, the fault, and its cost."""
    faults = []
    for _ in range(ROUNDS):
        normal_ms, statuses, before = stage.load()
        assert statuses == {200}
        mend = fault(stage)
        try:
            fault_ms, statuses, during = stage.load()
            found = stage.search()
        finally:
            mend()
        assert statuses == {200}
        if problems:
            assert found.status_code in (503, 504), found.text
            assert found.json()["type"].rpartition(":")[2] in problems, found.text
        began = time.monotonic()
        wait_for("documents are read again", stage.healthy, RECOVERY_S, 0.05)
        print(
            f"{fault.__name__}: p99 {normal_ms:.1f} ms, with the fault {fault_ms:.1f} ms, "
            f"deadline {stage.deadline_ms} ms, back after {time.monotonic() - began:.2f} s, {sorted(during)}"
        )
        assert bool(during) or not problems, "the fault was not noticed"
        assert {each.partition(": ")[2] for each in before | during} <= {"error", "timeout"}
        late = fault_ms > normal_ms + stage.deadline_ms
        faults.append({"degraded before": before, "degraded": during, "late": late, "ms": (normal_ms, fault_ms)})
        if not (before or late or (during and not problems)):
            return
    raise AssertionError(f"every round fell short, with a deadline of {stage.deadline_ms} ms: {faults}")


def test_a_service_whose_index_holds_vectors_of_another_length_does_not_start(render: Render) -> None:
    folder = render(serving="container", vector_db="qdrant_cloud")
    put_light_embedder(folder, "minilm")
    with running_database(folder) as database, SlowProxy(database.port).running() as proxy:
        stage = Stage(database, proxy, folder)
        mistake(stage)
        done = run_job(folder, "service.runtime.container", "--port", "0", **database.env())
    assert done.returncode == 3
    assert "holds vectors of 3 numbers and the embedding model makes 16: index anew" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_without_an_index_starts_says_so_and_finds_it_once_it_is_there(
    render: Render, request: pytest.FixtureRequest
) -> None:
    folder = render(serving="container", vector_db="pinecone")
    put_light_embedder(folder, "minilm")
    with running_database(folder) as database, SlowProxy(database.port).running() as proxy:
        stage = Stage(database, proxy, folder)
        with started("container", folder, database.env(), request) as stage.url:
            found = stage.search()
            assert (found.status_code, found.json()["type"]) == (503, "urn:problem-type:not-indexed")
            assert "python -m jobs.index_documents" in found.json()["detail"]
            stage.fill()
            wait_for("documents are found", lambda: stage.search().status_code == 200, RECOVERY_S, 0.05)
            assert len(stage.search().json()["documents"]) == 2


QUESTIONS = json.loads((Path(__file__).parent / "questions.json").read_text())


def test_the_right_document_comes_first_for_nine_of_ten_questions(
    render: Render, request: pytest.FixtureRequest
) -> None:
    """With real weights, on the example documents, for questions that share few words with them."""
    folder = render(serving="container", vector_db="qdrant_cloud")
    with running_database(folder) as database:
        done = run_job(folder, "jobs.index_documents", "jobs/example_documents.jsonl", **database.env())
        assert done.returncode == 0, done.stderr
        with started("container", folder, database.env(), request) as url:
            first = {
                question: httpx.post(f"{url}/v1/search", json={"query": question, "limit": 1}, timeout=30).json()[
                    "documents"
                ][0]["id"]
                for question in QUESTIONS
            }
    right = [question for question, wanted in QUESTIONS.items() if first[question] == wanted]
    wrong = {question: (first[question], wanted) for question, wanted in QUESTIONS.items() if question not in right}
    print(f"{len(right)} of {len(QUESTIONS)} right; not: {wrong}")
    assert len(right) >= 0.9 * len(QUESTIONS), wrong
