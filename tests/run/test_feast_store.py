"""The store on Feast by itself, in the environment of a service that has Feast; and what it is configured with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.run.conftest import Render
from tests.run.service import environment, feature_store, python_of
from tests.run.test_features import apply
from tests.store import running_store
from tests.variants import choices_of

CHECKS = Path(__file__).with_name("feast_store_checks.py")

LOADED = """
import os, sys
from pathlib import Path
from feast.repo_config import load_repo_config
sys.path[:0] = [".", "feature_repo"]
config = load_repo_config(Path("feature_repo"), Path("feature_repo/production.yaml").absolute())
import features
print(type(config.offline_store).__name__, type(features.user_activity.batch_source).__name__)
print(config.online_store.connection_string, config.registry.path, config.registry.cache_mode)
"""
WAREHOUSES = {
    "duckdb": "DuckDBOfflineStoreConfig FileSource",
    "snowflake": "SnowflakeOfflineStoreConfig SnowflakeSource",
    "bigquery": "BigQueryOfflineStoreConfig BigQuerySource",
}


def test_the_store_on_feast_keeps_its_promises(render: Render) -> None:
    folder = render(serving="container", features="feast")
    checks = str(shutil.copy(CHECKS, folder))
    with feature_store(folder) as env:
        done = suite(folder, "--noconftest", checks, **env)
    assert done.returncode == 0, done.stdout[-6000:]


def test_with_redis_online_as_in_production_it_keeps_the_same_promises(render: Render, tmp_path: Path) -> None:
    folder = render(serving="container", features="feast")
    checks = str(shutil.copy(CHECKS, folder))
    with running_store() as store:
        env = {
            "FEATURE_STORE_CONFIG": "feature_repo/production.yaml",
            "FEATURE_DATA": str(tmp_path),
            "FEATURE_REGISTRY": f"sqlite:///{tmp_path}/registry.db",
            "FEATURE_STORE_CONNECTION": f"127.0.0.1:{store.port}",
        }
        apply(folder, env)
        done = suite(folder, "--noconftest", checks, **env)
    assert done.returncode == 0, done.stdout[-6000:]


def test_training_sees_what_serving_saw_by_the_tests_that_ship(render: Render) -> None:
    done = suite(render(serving="container", features="feast"), "tests/training")
    assert done.returncode == 0, done.stdout[-6000:]


def test_the_tests_that_ship_see_an_offline_store_that_drops_rows(render: Render) -> None:
    """Feast's own default does."""
    folder = render(serving="container", features="feast")
    config = folder / "feature_repo/feature_store.yaml"
    assert "type: duckdb" in config.read_text()
    config.write_text(config.read_text().replace("type: duckdb", "type: file"))
    done = suite(folder, "tests/training", "-k", "dropped")
    assert done.returncode == 1
    assert "TrainingSetError: 5 rows went in and" in done.stdout, done.stdout[-6000:]


def suite(folder: Path, *tests: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run tests in the render in `folder`, by its Python."""
    command = [str(python_of(folder)), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, **env),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("offline_store", choices_of("offline_store"))
def test_feast_understands_the_configuration_of_each_offline_store(offline_store: str, render: Render) -> None:
    """As far as can be told without an account: Feast reads the file, and the sources are of its kind."""
    folder = render(features="feast", offline_store=offline_store)
    variables = ("ACCOUNT", "USER", "PASSWORD", "ROLE", "WAREHOUSE", "DATABASE", "SCHEMA")
    env = {
        "FEATURE_REGISTRY": "postgresql+psycopg://registry.example.com/feast",
        "FEATURE_STORE_CONNECTION": "redis.example.com:6379,ssl=true",
        **{f"SNOWFLAKE_{name}": name.lower() for name in variables},
        **{f"BIGQUERY_{name}": name.lower() for name in ("PROJECT", "DATASET")},
        **({"FEATURE_DATA": "s3://bucket/features"} if offline_store == "duckdb" else {}),
    }
    done = subprocess.run(
        [str(python_of(folder)), "-W", "ignore", "-c", LOADED],
        cwd=folder,
        env=environment(folder, **env),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[0] == WAREHOUSES[offline_store]
    assert done.stdout.splitlines()[1] == f"{env['FEATURE_STORE_CONNECTION']} {env['FEATURE_REGISTRY']} thread"
