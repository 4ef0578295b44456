"""BentoML with its documented adaptive batching: batches of at most 32, padded; one worker.

Run as `python -m bentoml serve benchmarks.serving.contestants.bentoml_batch:TextService --port P`.
`max_latency_ms` is BentoML's default of 60 s: a request that would miss it is refused, and we want none refused.
"""

import bentoml

from benchmarks.serving.contestants.plain_model import PlainModel, model_module

Instance, Prediction = model_module().Instance, model_module().Prediction


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class TextService:
    def __init__(self) -> None:
        self._model = PlainModel()
        print("ready:", flush=True)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, instances: list[Instance]) -> list[Prediction]:
        return [Prediction.model_validate(answer) for answer in self._model.padded(instances)]
