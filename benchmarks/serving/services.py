"""The generated services that are measured: rendered from the working tree, or taken from folders that exist."""

import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = "minilm"


def render(folder: Path, serving: str, replicas: int, weights: Path, dtype: str) -> Path:
    """A service rendered from the working tree's template, changes that are not committed included.

    serving: `container` or `ray`. replicas: of Ray mode, fixed. weights: folder of the checkpoint. dtype: of
    the weights, as the questionnaire names it.
    """
    import copier

    template = folder.with_name("template-source")
    for old in (template, folder):
        shutil.rmtree(old, ignore_errors=True)
    template.mkdir(parents=True)
    shutil.copy(ROOT / "copier.yml", template)
    for part in ("extensions", "template"):
        shutil.copytree(ROOT / part, template / part, ignore=shutil.ignore_patterns("__pycache__"))
    answers: dict[str, Any] = {
        "service_name": "serving-benchmark",
        "latency_objective_ms": 1000,
        "serving": serving,
        "model_name": NAME,
        "model_task": "text-classification",
        "model_source": str(weights),
        "model_revision": "benchmark",
        "model_dtype": dtype,
        "model_max_batch_size": 32,
        "model_max_batch_tokens": 2048,
        "model_batch_wait_ms": 0,
        "model_min_replicas": replicas,
        "model_max_replicas": replicas,
    }
    copier.run_copy(str(template), folder, data=answers, defaults=True, quiet=True)
    return folder


def adopt(source: Path, folder: Path, replicas: int, weights: Path) -> Path:
    """A copy of the service in `source`, with `weights` and a fixed number of replicas written into its config."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", ".venv", ".git"))
    container, ray = folder / "config/service.yaml", folder / "config/serve.yaml"
    if container.exists():
        config = yaml.safe_load(container.read_text())
        config["models"][0]["source"] = str(weights)
        container.write_text(yaml.safe_dump(config, sort_keys=False))
    if ray.exists():
        config = yaml.safe_load(ray.read_text())
        config["applications"][0]["args"]["source"] = str(weights)
        autoscaling = config["applications"][0]["deployments"][0]["autoscaling_config"]
        autoscaling |= {"min_replicas": replicas, "max_replicas": replicas}
        ray.write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def model_name(folder: Path) -> str:
    """The name of the first model, as its URL has it."""
    if (config := folder / "config/service.yaml").exists():
        return yaml.safe_load(config.read_text())["models"][0]["name"]
    return yaml.safe_load((folder / "config/serve.yaml").read_text())["applications"][0]["args"]["name"]
