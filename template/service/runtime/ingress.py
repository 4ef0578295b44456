"""The HTTP API, the same in both serving modes: predictions, health, the list of models, OpenAPI at `/docs`."""

import logging
import re
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from fastapi import FastAPI, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.runtime.predict import PredictEndpoint
from service.runtime.problems import MEDIA_TYPE, Problem, ProblemError
from service.runtime.served import ServedModel

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, text in {
        400: "The body is not JSON.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is declared as something other than JSON.",
        422: "The body is JSON of the wrong shape, or a text is too long.",
        429: "Too much is queued: try again after `Retry-After` seconds.",
        503: "What is needed to answer is not there.",
        504: "The answer did not come in time.",
    }.items()
}


class ModelStatus(BaseModel):
    """One model of the service. ready: its weights are loaded and it runs batches."""

    name: str
    revision: str
    ready: bool


class ModelList(BaseModel):
    models: list[ModelStatus]


class Health(BaseModel):
    status: str


class Endpoint(Protocol):
    """An ASGI endpoint that reads and writes its bodies itself; see `document_endpoint`."""

    summary: str
    request_type: type[BaseModel]
    response_type: type[BaseModel]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Ingress:
    """The outermost ASGI app: request ids, problems, and predictions sent straight to their endpoint.

    app: answers every other path. endpoints: path -> endpoint. behind_serve: Ray Serve hosts the app and has given the
    request its id, which it also returns.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint], behind_serve: bool) -> None:
        self.app = app
        self.endpoints = endpoints
        self.behind_serve = behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        scope["service.request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if not self.behind_serve:
                    message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        path = scope["path"].removeprefix(scope.get("root_path", ""))
        answer = self.endpoints.get(path, self.app) if scope["method"] == "POST" else self.app
        try:
            await answer(scope, receive, send_with_id)
        except ProblemError as error:
            traceback.clear_frames(error.__traceback__)  # or the body stays in memory until the garbage collector comes
            await error.response(request_id)(scope, receive, send_with_id)
        except Exception as error:
            log.exception("unexpected error", extra={"request_id": request_id, "path": scope["path"]})
            traceback.clear_frames(error.__traceback__)
            if started:
                raise
            detail = f"look for request id {request_id} in the logs of the service"
            problem = ProblemError(500, "internal", "Internal error", detail)
            await problem.response(request_id)(scope, receive, send_with_id)

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = str(value, "latin-1")
                if self.behind_serve or REQUEST_ID.fullmatch(given):
                    return given
        return uuid.uuid4().hex


def build_service(
    models: Sequence[ServedModel], behind_serve: bool, more: Mapping[str, Endpoint] | None = None
) -> tuple[FastAPI, Ingress]:
    """The API of all models in this process: the FastAPI app, to add routes to, and the ASGI app, to serve.

    more: path -> endpoint, of what the service offers besides its models.
    """
    app = FastAPI(title="service", version="1")
    endpoints: dict[str, Endpoint] = {
        f"/v1/models/{served.settings.name}/predict": PredictEndpoint(served) for served in models
    }
    endpoints |= more or {}
    for path, endpoint in endpoints.items():
        document_endpoint(app, path, endpoint)

    async def list_models() -> ModelList:
        return ModelList(models=[status_of(served) for served in models])

    async def alive() -> bool:
        return all(served.alive for served in models)

    add_service_routes(app, list_models, alive, sorted(served.settings.name for served in models))
    return app, Ingress(app, endpoints, behind_serve)


def build_model(served: ServedModel) -> tuple[FastAPI, Ingress]:
    """The API of one model alone, for a Serve application whose route prefix is `/v1/models/<name>`."""
    app = FastAPI(title=served.settings.name, version="1")
    endpoint = PredictEndpoint(served)
    document_endpoint(app, "/predict", endpoint)
    add_problem_handlers(app)
    return app, Ingress(app, {"/predict": endpoint}, behind_serve=True)


def status_of(served: ServedModel) -> ModelStatus:
    return ModelStatus(name=served.settings.name, revision=served.settings.revision, ready=served.alive)


def document_endpoint(app: FastAPI, path: str, endpoint: Endpoint) -> None:
    """Describe a prediction endpoint in the OpenAPI document. `Ingress` answers `POST path` before it gets here."""

    async def documented(request: Request) -> None:
        # A path that the framework takes for this one, such as one that ends in a line feed.
        raise ProblemError(404, "not-found", "Not found", f"nothing answers POST {request.url.path}")

    body = {"required": True, "content": {"application/json": {"schema": inline_schema(endpoint.request_type)}}}
    app.add_api_route(
        path,
        documented,
        methods=["POST"],
        summary=endpoint.summary,
        response_model=endpoint.response_type,
        responses=PROBLEMS,
        openapi_extra={"requestBody": body},
    )


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `model` with its definitions written in place, as OpenAPI wants it."""

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rsplit("/", 1)[1]])
            return {key: resolve(value) for key, value in node.items() if key != "$defs"}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    resolved: dict[str, Any] = resolve(schema)
    return resolved


def add_service_routes(
    app: FastAPI,
    list_models: Callable[[], Awaitable[ModelList]],
    alive: Callable[[], Awaitable[bool]],
    names: Sequence[str],
) -> None:
    """Health, the list of models, and a helpful answer for a model or a path that does not exist.

    alive: whether batches can run in this process.
    """
    add_problem_handlers(app)

    @app.get("/healthz", summary="Is the process in order? Restart it if not.", responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        good = await alive()
        response.status_code = 200 if good else 503
        return Health(status="ok" if good else "a batcher has stopped: restart the process")

    @app.get("/readyz", summary="Can every model answer? Send traffic if so.", responses={503: {"model": ModelList}})
    async def readyz(response: Response) -> ModelList:
        models = await list_models()
        response.status_code = 200 if all(model.ready for model in models.models) else 503
        return models

    app.add_api_route("/v1/models", list_models, summary="The models that this service offers.")

    @app.post("/v1/models/{name}/predict", include_in_schema=False)
    async def unknown_model(name: str) -> None:
        detail = f"there is no model {name!r}; this service has {', '.join(names)}"
        raise ProblemError(404, "unknown-model", "Unknown model", detail)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer the framework's own errors as problems too."""

    async def http_problem(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        where = f"{request.method} {request.url.path}"
        kind, title, detail = {
            404: ("not-found", "Not found", f"nothing answers {where}; see /docs for what does"),
            405: ("method-not-allowed", "Method not allowed", f"{where} is not offered"),
        }.get(status, ("http", "HTTP error", f"{where}: {error}"))
        return ProblemError(status, kind, title, detail, headers).response(request.scope["service.request_id"])

    async def own_problem(request: Request, error: Exception) -> Response:
        return cast(ProblemError, error).response(request.scope["service.request_id"])

    app.add_exception_handler(HTTPException, http_problem)
    app.add_exception_handler(ProblemError, own_problem)
