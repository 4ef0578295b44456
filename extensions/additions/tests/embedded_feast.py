"""A feature store without a server of yours: Feast on files, in a folder of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.features.views import VIEWS
from service.runtime.feature_writer_feast import create_history
from service.runtime.features import View
from service.runtime.features_feast import feast_name

ROOT = Path(__file__).parents[1]


@contextmanager
def running_store() -> Iterator[dict[str, str]]:
    """A registry, an online store and empty histories, gone with the context; yields the environment to find them."""
    with tempfile.TemporaryDirectory() as folder:
        for view in map(View.of, VIEWS):
            create_history(Path(folder, f"{feast_name(view)}.parquet"), view)
        found = {"FEATURE_DATA": folder}
        command = [Path(sys.executable).with_name("feast"), "--chdir", "feature_repo", "apply"]
        environment = {**os.environ, **found, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`feast apply` failed:\n{done.stdout}{done.stderr}")
        yield found
