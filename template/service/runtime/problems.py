"""Errors as a caller sees them: problem details, RFC 9457, `application/problem+json`."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """The body of every error. `type` names the kind of problem and is stable; `detail` is for a person."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    request_id: str


class ProblemError(Exception):
    """Raised anywhere below the ingress and answered as a problem. `extra` members are added to the body."""

    def __init__(
        self, status: int, kind: str, title: str, detail: str, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.title = title
        self.headers = headers
        self.extra = extra

    def response(self, request_id: str) -> JSONResponse:
        body = {
            "type": f"urn:problem-type:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": str(self),
            "request_id": request_id,
            **self.extra,
        }
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)
