"""Settings are checked at start, and the message names the file, the key, the value and the remedy."""

from pathlib import Path

import pytest
import torch
import yaml

from service.runtime.device import claim_device
from service.runtime.settings import ModelSettings, SettingsError, load_service_settings

BATCH = {"max_batch_size": 8, "max_batch_tokens": 512, "batch_wait_ms": 0, "max_queue_length": 32}
MODEL = {
    "name": "a",
    "source": "x",
    "revision": "1",
    "dtype": "float32",
    "long_text": "truncate",
    "request_timeout_s": 5,
    "cpu_threads": 1,
    "gpu_memory_fraction": None,
}


def load(folder: Path, *models: dict[str, object]) -> object:
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump({"latency_objective_ms": 200, "models": list(models)}))
    return load_service_settings(path)


def test_good_settings_are_accepted(tmp_path: Path) -> None:
    load(tmp_path, {**MODEL, "batch": BATCH})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_batch": 3}, ["models.0.max_batch", "Extra inputs are not permitted", "3"]),
        ({"dtype": "int8"}, ["models.0.dtype", "float32", "'int8'"]),
        ({"name": "Not A Name"}, ["models.0.name", "'Not A Name'"]),
        ({"request_timeout_s": 0}, ["models.0.request_timeout_s", "greater than 0"]),
        ({"gpu_memory_fraction": 1.5}, ["models.0.gpu_memory_fraction", "less than or equal to 1", "1.5"]),
        ({"batch": {**BATCH, "max_batch_size": 0}}, ["models.0.batch.max_batch_size", "greater than or equal to 1"]),
        ({"batch": {**BATCH, "max_queue_length": 7}}, ["7 is below max_batch_size 8", "raise max_queue_length"]),
    ],
)
def test_bad_settings_are_refused_by_name_and_value(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {**MODEL, "batch": BATCH, **change})
    for word in [str(tmp_path / "service.yaml"), *words]:
        assert word in str(caught.value)


def test_a_password_in_a_url_and_the_length_of_a_value_stay_out_of_messages(tmp_path: Path) -> None:
    urls = {"url": "redis://me:geheim@host/0", "other_url": "redis://host/0?password=geheim", "long": "x" * 1000}
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {**MODEL, "batch": BATCH, **urls})
    assert "geheim" not in str(caught.value)
    assert "models.0.url: Extra inputs are not permitted (got 'redis://***@host/0')" in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 160


def test_a_key_that_is_missing_is_named_without_all_the_others(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {key: value for key, value in MODEL.items() if key != "source"} | {"batch": BATCH})
    assert str(caught.value).endswith("  models.0.source: Field required")


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="these stand twice: a"):
        load(tmp_path, {**MODEL, "batch": BATCH}, {**MODEL, "batch": BATCH})


def test_a_missing_file_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_service_settings(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("models: [")
    with pytest.raises(SettingsError, match="is not YAML"):
        load_service_settings(tmp_path / "broken.yaml")


def test_a_gpu_is_claimed_with_the_share_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: limits.append(given))
    device = claim_device(ModelSettings.model_validate({**MODEL, "gpu_memory_fraction": 0.4}))
    assert device == torch.device("cuda", 0)
    assert limits == [(0.4, device)]
