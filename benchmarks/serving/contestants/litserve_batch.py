"""LitServe with its documented batching: batches of 32, 5 ms to fill one, padded; one worker, one API server.

Run as `python -m benchmarks.serving.contestants.litserve_batch --port P`.
"""

import argparse
from typing import Any

import litserve

from benchmarks.serving.contestants.plain_model import PlainModel


class TextApi(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._model = PlainModel()
        print("ready:", flush=True)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads an annotation as a schema
        return self._model.parse(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: list[Any]) -> list[dict[str, Any]]:
        return self._model.padded(batch)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [output]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    server = litserve.LitServer(
        TextApi(max_batch_size=32, batch_timeout=0.005), accelerator="cpu", devices=1, workers_per_device=1, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=parser.parse_args().port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
