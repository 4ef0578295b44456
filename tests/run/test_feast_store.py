"""The store on Feast by itself, in the environment of a service that has Feast; and what it is configured with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.run.conftest import Render
from tests.run.service import environment, feature_store, python_of
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
    checks = shutil.copy(CHECKS, folder)
    with feature_store(folder) as env:
        command = [str(python_of(folder)), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", checks]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(folder, **env),
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stdout[-6000:]


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
