"""One search request, from bytes to bytes: `POST /v1/search`, a query in, documents with scores out."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.runtime.bodies import invalid, read_body
from service.runtime.predict import REFUSALS, refusal
from service.runtime.problems import ProblemError
from service.runtime.retrieval import (
    MAX_LIMIT,
    Condition,
    Hit,
    IndexMismatch,
    NotIndexed,
    RetrievalSettings,
    SearchRefused,
    Where,
)
from service.runtime.stages import begin, summary
from service.runtime.tracing import trace

log = logging.getLogger(__name__)

PATH = "/v1/search"
# (query, limit, where) -> documents, nearest first.
Find = Callable[[str, int, Mapping[str, Condition]], Awaitable[list[Hit]]]


class SearchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    query: str = Field(min_length=1, max_length=100_000, examples=["How do I reset my password?"])
    limit: int = Field(10, ge=1, le=MAX_LIMIT, description="Documents at most.")
    where: Where = Field({}, description="Field of the metadata -> its value, a list of values, or bounds gt to lte.")


class SearchResponse(BaseModel):
    model: str = Field(description="The embedding model.")
    revision: str
    request_id: str
    documents: list[Hit]


class SearchEndpoint:
    """ASGI endpoint of the search. The scope must hold `service.request_id`.

    behind_serve: Ray Serve hosts the app, and itself cancels searches whose caller has left.
    """

    summary = "Search: the documents nearest in meaning to a query, nearest first."
    request_type: type[BaseModel] = SearchRequest
    response_type: type[BaseModel] = SearchResponse

    def __init__(self, settings: RetrievalSettings, find: Find, behind_serve: bool) -> None:
        self._settings = settings
        self._find = find
        self._behind_serve = behind_serve
        self._parse = TypeAdapter(SearchRequest).validate_json
        self._dump = TypeAdapter(SearchResponse).dump_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises ProblemError for what must be answered as a problem."""
        stages = begin()
        started_s = time.monotonic()
        request_id = scope["service.request_id"]
        outcome = "error"
        try:
            asked = self._parse(await read_body(scope, receive))
            finding = self._find(asked.query, asked.limit, asked.where)
            documents = await unless_disconnected(receive, cast(Any, finding), watch=not self._behind_serve)
            body = self._dump(
                SearchResponse.model_construct(
                    model=self._settings.embedder,
                    revision=self._settings.revision,
                    request_id=request_id,
                    documents=documents,
                )
            )
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            outcome = "ok"
        except ValidationError as error:
            outcome = "invalid"
            raise invalid(error) from None
        except ProblemError:
            outcome = "invalid"
            raise
        except ClientDisconnect:
            outcome = "cancelled"  # nobody is left to answer
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            outcome, problem = self._problem(error)
            if outcome == "error" or isinstance(error, SearchRefused):
                log.warning("search failed", extra={"request_id": request_id, "error": f"{error!r}"})
            raise problem from None
        finally:
            spent = {"duration_ms": round((time.monotonic() - started_s) * 1e3, 2)}
            trace("search", scope["headers"], started_s, stages, request_id, outcome)
            spent |= summary(stages, self._settings.embedder)
            log.info("search", extra={"request_id": request_id, "outcome": outcome, **spent})

    def _problem(self, error: Exception) -> tuple[str, ProblemError]:
        """The outcome, and what the caller is told. What a database says of itself goes to the log only."""
        if isinstance(error, REFUSALS):
            return refusal(error)
        if isinstance(error, NotIndexed):
            return "missing", ProblemError(503, "not-indexed", "Nothing to search", str(error))
        if isinstance(error, IndexMismatch):
            return "error", ProblemError(503, "index-mismatch", "Another model's index", str(error))
        if isinstance(error, SearchRefused):
            detail = "the vector database does not answer such a search: look at `where`; the service's log says why"
            return "invalid", ProblemError(422, "search-refused", "Search refused", detail)
        if isinstance(error, TimeoutError):
            detail = f"the vector database did not answer within {self._settings.deadline_ms:g} ms"
            return "timeout", ProblemError(504, "search-timeout", "Too late", detail)
        detail = "the vector database cannot be searched at the moment; the service's log says why"
        return "error", ProblemError(503, "search-unavailable", "No search", detail, {"retry-after": "1"})


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, list[Hit]], watch: bool) -> list[Hit]:
    """The result of `work`; ClientDisconnect, and `work` cancelled, when the caller leaves first."""
    if not watch:
        return await work
    task = cast(asyncio.Task[Any], asyncio.current_task())

    async def until_disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watcher = asyncio.ensure_future(until_disconnect())
    watcher.add_done_callback(lambda done: None if done.cancelled() else task.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled():
            task.uncancel()
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
