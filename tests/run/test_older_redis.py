"""The reader and the writer of Redis with the oldest redis-py that a service may have: the one that Feast forces."""

import subprocess

from tests.run.conftest import Render
from tests.run.service import FEAST_PYTHON, environment
from tests.store import running_store

CODE = """
import asyncio, time
import redis
from jobs.write_features import rows_of
from service.runtime.feature_store import FeatureReader, FeatureWriter, load_feature_settings
lines = open("jobs/example_features.jsonl").read().splitlines()
writer = FeatureWriter(load_feature_settings())
rows = list(rows_of(lines, time.time()))
writer.write(rows)
async def main():
    reader = FeatureReader(load_feature_settings().model_copy(update={"deadline_ms": 5000}))
    await reader.start()
    found = await reader.read([(row.view, row.entity) for row in rows])
    await reader.close()
    assert found and all(each.values for each in found), found
asyncio.run(main())
print(redis.__version__)
"""


def test_redis_is_read_and_written_with_the_redis_py_that_feast_forces(render: Render) -> None:
    folder = render(serving="container", features="redis")
    with running_store() as store:
        done = subprocess.run(
            [str(FEAST_PYTHON), "-c", CODE],
            cwd=folder,
            env=environment(folder, FEATURE_STORE_URL=store.url),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7.4."), done.stdout
