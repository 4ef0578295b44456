"""Every command and snippet of the README and the documentation, followed from top to bottom."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, Reader, blocks_of

RENDERS_ITSELF = {"README.md", "docs/tutorial.md"}
# The second changes the service that the first has started.
ON_RAY = ["docs/how-to/move-to-ray.md", "docs/how-to/change-batch-limits.md"]
ALONE = [name for name in (str(path.relative_to(ROOT)) for path in DOCUMENTS if blocks_of(path)) if name not in ON_RAY]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_following_a_document_works(reader: Reader, name: str) -> None:
    if name in RENDERS_ITSELF:
        shutil.rmtree(reader.home / "text-service")
    reader.follow(ROOT / name)


@pytest.mark.slow
def test_moving_to_ray_and_then_changing_limits_while_it_runs_works(reader: Reader) -> None:
    reader.follow(*(ROOT / name for name in ON_RAY))
    assert reader.last_output.strip().endswith("max_batch_size: 16")


@pytest.mark.slow
def test_the_demo_prints_a_real_prediction_and_leaves_nothing_running() -> None:
    done = subprocess.run(
        [sys.executable, "demo/demo.py"],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"0\.\d{3}  Refunds .* <- nearest", done.stdout)
    assert "stopped cleanly" in done.stdout
    url = re.search(r"POST (http://\S+?)/v1", done.stdout)
    assert url is not None
    assert subprocess.run(["curl", "--silent", url[1]], check=False).returncode == 7, "something still listens"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"
