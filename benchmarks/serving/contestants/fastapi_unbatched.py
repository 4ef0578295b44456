"""FastAPI, one forward pass per request, as most services begin. Factories for `uvicorn --factory`.

`threaded` has the `def` endpoint that FastAPI's documentation asks for around blocking code: up to 40 threads.
`blocking` has an `async def` endpoint that blocks the event loop: one request at a time, no hand-over to a thread.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.contestants.plain_model import PlainModel, model_module

Instance, Prediction = model_module().Instance, model_module().Prediction


class PredictRequest(BaseModel):
    instances: list[Instance]


class PredictResponse(BaseModel):
    predictions: list[Prediction]


def new_app() -> FastAPI:
    """An application that loads the model at start, into `app.state.model`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.model = PlainModel()
        print("ready:", flush=True)
        yield

    return FastAPI(lifespan=lifespan)


def threaded() -> FastAPI:
    app = new_app()

    @app.post("/predict", response_model=PredictResponse)
    def predict(request: PredictRequest) -> dict[str, Any]:
        return {"predictions": app.state.model.padded(request.instances)}

    return app


def blocking() -> FastAPI:
    app = new_app()

    @app.post("/predict", response_model=PredictResponse)
    async def predict(request: PredictRequest) -> dict[str, Any]:
        return {"predictions": app.state.model.padded(request.instances)}

    return app
