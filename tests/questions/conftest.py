"""Two ways to put questions: through Copier itself, and (fast) by rendering the macros alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from questionnaire import ROOT, TABLES, Questionnaire


@pytest.fixture(scope="session")
def questionnaire(tmp_path_factory: pytest.TempPathFactory) -> Questionnaire:
    return Questionnaire(tmp_path_factory.mktemp("questionnaire"))


# What the macros read besides the answers that a test gives: a light load on a small first model, cards not divided.
USUAL: dict[str, Any] = {
    "expected_rps": 5,
    "vector_db": "none",
    "embedder": "",
    "serving": "ray",
    "gpu_sharing": "ray-fraction",
    "mig_profile": "",
    "models": [],
    "model_task": "embedding",
    "model_parameters_millions": 23,
    "model_dtype": "float32",
    "model_gpu_share": 0,
    "model_max_batch_size": 8,
    "model_max_batch_tokens": 512,
    "model_min_replicas": 1,
    "model_max_replicas": 2,
}


def _regex_search(value: str, regex: str) -> str | None:
    """This and from_json are the only filters of Copier's that the macros use."""
    found = re.search(regex, value)
    return found.group() if found else None


@pytest.fixture(scope="session")
def render_macro() -> Callable[..., str]:
    """Render a Jinja text in which every macro of the libraries is in reach."""
    env = jinja2.Environment(  # noqa: S701  this renders YAML, not HTML
        loader=jinja2.FileSystemLoader(ROOT),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {"regex_search": _regex_search, "from_json": json.loads}
    imports = (
        "{% import 'extensions/capacity.jinja' as capacity with context %}"
        "{% import 'extensions/plan.jinja' as plans with context %}"
        "{% import 'extensions/checks.jinja' as checks with context %}"
        "{% import 'extensions/checks/more_models.jinja' as more_models_checks with context %}"
        "{% import 'extensions/checks/gpu_sharing.jinja' as gpu_sharing_checks with context %}"
        "{% import 'extensions/mig.jinja' as mig with context %}"
    )
    compiled: dict[str, jinja2.Template] = {}

    def render(text: str, **context: Any) -> str:
        if text not in compiled:
            compiled[text] = env.from_string(imports + text)
        return compiled[text].render(TABLES | USUAL | context)

    return render
