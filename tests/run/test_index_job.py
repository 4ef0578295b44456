"""The index job: killed and run again, it ends with what an uninterrupted run makes; a bad file writes nothing."""

import functools
import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.database import Database, running_database
from tests.run.conftest import Render
from tests.run.light import put_light_embedder
from tests.run.service import RayHead, environment, python_of, wait_for
from tests.run.test_retrieval import run_job

KILLS = 20
DOCUMENTS = 6000
BATCH_S = 0.02

# Everything that an index holds, with the vectors, by the alias that serves it: as lines of JSON, sorted by id.
HELD = """
import asyncio, json
from qdrant_client import models
from service.runtime.vector_index import load_retrieval_settings
from service.runtime.retrieval_qdrant import client_of
async def main():
    settings = load_retrieval_settings()
    client = client_of(settings, 60)
    count = (await client.count(settings.alias)).count
    zero = [1.0] + [0.0] * 15
    asked = models.QueryRequest(query=zero, limit=count + 10)
    (answer,) = await client.query_batch_points(settings.alias, requests=[asked])
    ids = [point.id for point in answer.points]
    points = await client.retrieve(settings.alias, ids, with_vectors=True)
    aliases = (await client.get_aliases()).aliases
    collections = (await client.get_collections()).collections
    rows = sorted((str(point.id), point.payload, [round(n, 6) for n in point.vector]) for point in points)
    print(json.dumps({"count": count, "rows": rows, "aliases": len(aliases), "collections": len(collections)}))
asyncio.run(main())
"""


# The job over Ray, of a file whose documents are not those that were checked.
CHANGED = """
import dataclasses
from jobs import index_documents_ray as job
checked = job.survey
def of_others(path):
    found = checked(path)
    return dataclasses.replace(found, digests=found.digests + 1)
job.survey = of_others
job.main()
"""


@pytest.fixture(scope="module")
def folder(render: Render) -> Path:
    made = render(serving="container", vector_db="qdrant_cloud")
    put_light_embedder(made, "minilm", BATCH_S)
    return made


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    with running_database(folder) as made:
        yield made


def documents(count: int) -> list[dict[str, Any]]:
    chosen = random.Random(7)
    return [
        {
            "id": f"d{n}",
            "text": " ".join(chosen.choices(["late", "parcel", "again", "boots", "tent"], k=chosen.randrange(1, 40))),
            "metadata": {"n": n, "even": n % 2 == 0},
        }
        for n in range(count)
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def held(folder: Path, database: Database) -> dict[str, Any]:
    done = subprocess.run(
        [str(python_of(folder)), "-c", HELD],
        cwd=folder,
        env=environment(folder, **database.env()),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal, id by id, but for the last digits of vectors: the stand-in makes them of length 1 again at a search."""
    if {key: one[key] for key in one if key != "rows"} != {key: other[key] for key in other if key != "rows"}:
        return False
    return all(
        mine[:2] == theirs[:2] and mine[2] == pytest.approx(theirs[2], abs=1e-4)
        for mine, theirs in zip(one["rows"], other["rows"], strict=True)
    )


def written(database: Database) -> int:
    """Points in all collections."""
    headers = {"api-key": database.env()["VECTOR_DB_API_KEY"]}
    with httpx.Client(base_url=database.env()["VECTOR_DB_URL"], headers=headers, timeout=30) as client:
        names = [each["name"] for each in client.get("/collections").json()["result"]["collections"]]
        return sum(client.get(f"/collections/{name}").json()["result"]["points_count"] for name in names)


def has_written(job: "subprocess.Popen[bytes]", database: Database, count: int) -> bool:
    return job.poll() is not None or written(database) >= count


def test_a_job_that_is_killed_twenty_times_ends_with_the_index_of_one_that_was_not(
    folder: Path, database: Database, tmp_path: Path
) -> None:
    """Killed with SIGKILL, each time when it has written at least a random number of documents."""
    path = write_lines(tmp_path / "documents.jsonl", documents(DOCUMENTS))
    command = [str(python_of(folder)), "-m", "jobs.index_documents", str(path)]
    seed = random.randrange(10**6)
    chosen = random.Random(seed)
    limits = sorted(chosen.randrange(DOCUMENTS) for _ in range(KILLS))
    print(f"seed {seed}, killed at {limits}")
    for limit in limits:
        with subprocess.Popen(
            command, cwd=folder, env=environment(folder, **database.env()), stdout=subprocess.DEVNULL
        ) as job:
            reached = functools.partial(has_written, job, database, limit)
            wait_for(f"{limit} documents are written", reached, 120, 0.02)
            assert job.poll() is None, "the job ended before it could be killed: more documents are needed"
            job.kill()
    resumed = run_job(folder, "jobs.index_documents", str(path), **database.env())
    assert resumed.returncode == 0, resumed.stderr
    after = held(folder, database)
    database.stop()
    database.start()
    assert run_job(folder, "jobs.index_documents", str(path), **database.env()).returncode == 0
    once = held(folder, database)
    assert once["count"] == len(once["rows"]) == DOCUMENTS
    assert same(after, once)
    assert (once["aliases"], once["collections"]) == (1, 1)


def test_a_job_that_is_interrupted_says_what_to_do_and_goes_on(
    folder: Path, database: Database, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "documents.jsonl", documents(DOCUMENTS))
    with subprocess.Popen(
        [str(python_of(folder)), "-m", "jobs.index_documents", str(path)],
        cwd=folder,
        env=environment(folder, **database.env()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What is started in the background ignores the signal of Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 no threads here
    ) as job:
        wait_for("documents are written", lambda: job.poll() is not None or written(database) > 0, 120, 0.02)
        job.send_signal(signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "not indexed: stopped; run it again, and it goes on from here" in said
    assert "Traceback" not in said
    assert 0 < written(database) < DOCUMENTS


def test_the_same_file_twice_and_as_parquet_is_the_same_index(folder: Path, database: Database, tmp_path: Path) -> None:
    rows = documents(300)
    lines = write_lines(tmp_path / "documents.jsonl", rows)
    parquet = tmp_path / "documents.parquet"
    flat = [{"id": row["id"], "text": row["text"], **row["metadata"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(flat), parquet)
    states = []
    for path in (lines, lines, parquet):
        done = run_job(folder, "jobs.index_documents", str(path), **database.env())
        assert done.returncode == 0, done.stderr
        states.append(held(folder, database))
    assert states[0]["count"] == 300
    assert all(same(states[0], state) for state in states[1:])


def test_a_new_file_is_served_at_once_and_whole_and_the_old_index_goes_only_when_asked(
    folder: Path, database: Database, tmp_path: Path
) -> None:
    first, second = (write_lines(tmp_path / f"{n}.jsonl", documents(n)) for n in (50, 60))
    assert run_job(folder, "jobs.index_documents", str(first), **database.env()).returncode == 0
    done = run_job(folder, "jobs.index_documents", str(second), **database.env())
    assert "is no longer served: the next `--prune` deletes it" in done.stdout
    assert held(folder, database)["count"] == 60
    assert held(folder, database)["collections"] == 2
    done = run_job(folder, "jobs.index_documents", str(second), "--prune", **database.env())
    assert done.returncode == 0, done.stderr
    assert held(folder, database)["collections"] == 1


GOOD = {"id": "a", "text": "a text", "metadata": {"n": 1}}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD, {"id": "b"}], "document 2, cannot be used:\n  text: Field required"),
        ([GOOD, {**GOOD, "id": ""}], "document 2, cannot be used:\n  id:"),
        ([GOOD, GOOD], "has the id 'a' twice"),
        ([GOOD, {**GOOD, "id": "b", "metadata": {"n": "one"}}], "n of document 'b' is str and was int before"),
        ([GOOD, {**GOOD, "id": "b", "metadata": {"n": {"deep": 1}}}], "document 2, cannot be used:\n  metadata.n"),
        ([GOOD, {**GOOD, "id": "b", "extra": 1}], "extra: Extra inputs"),
        ([], "has no documents"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_words_and_nothing_is_written(
    folder: Path, database: Database, tmp_path: Path, rows: list[dict[str, Any]], words: str
) -> None:
    path = write_lines(tmp_path / "documents.jsonl", rows)
    done = run_job(folder, "jobs.index_documents", str(path), **database.env())
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert written(database) == 0


@pytest.mark.parametrize("wrong", [{"VECTOR_DB_URL": "http://127.0.0.1:9"}, {"VECTOR_DB_API_KEY": "wrong"}])
def test_a_database_that_is_down_or_refuses_is_told_in_words(
    folder: Path, database: Database, tmp_path: Path, wrong: dict[str, str]
) -> None:
    path = write_lines(tmp_path / "documents.jsonl", [GOOD])
    done = run_job(folder, "jobs.index_documents", str(path), **database.env() | wrong)
    assert done.returncode == 1
    assert "not indexed: " in done.stderr
    assert "run it again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_count_that_does_not_agree_keeps_the_index_that_was_served(
    folder: Path, database: Database, tmp_path: Path
) -> None:
    """A database that loses a write says nothing; the job sees it."""
    first, second = (write_lines(tmp_path / f"{n}.jsonl", documents(n)) for n in (50, 60))
    assert run_job(folder, "jobs.index_documents", str(first), **database.env()).returncode == 0
    code = f"""
import asyncio, sys
from jobs import index_documents
from service.runtime.retrieval_qdrant import QdrantIndexWriter
index_documents.COUNT_S = 0.1
whole = QdrantIndexWriter.upsert
async def lossy(self, documents, vectors):
    await whole(self, documents[1:], vectors[1:])
QdrantIndexWriter.upsert = lossy
sys.argv = ["job", {str(second)!r}]
index_documents.main()
"""
    done = subprocess.run(
        [str(python_of(folder)), "-c", code],
        cwd=folder,
        env=environment(folder, **database.env()),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "holds 59 documents and should hold 60: it is not served" in done.stderr
    assert held(folder, database)["count"] == 50


def test_the_job_over_ray_data_makes_the_same_index(
    render: Render, folder: Path, database: Database, tmp_path: Path
) -> None:
    """On a cluster whose pods find the database by their environment, two workers on one (logical) card."""
    on_ray = render(serving="ray", vector_db="qdrant_cloud")
    put_light_embedder(on_ray, "minilm")
    path = write_lines(tmp_path / "documents.jsonl", documents(5000))
    assert run_job(folder, "jobs.index_documents", str(path), **database.env()).returncode == 0
    alone = held(folder, database)
    # Columns with gaps, in a folder whose name is no column.
    parquet = tmp_path / "year=2026/documents.parquet"
    parquet.parent.mkdir()
    flat = [{"id": f"p{n}", "text": "a tent", "n": None if n % 3 else n, "even": n % 2 == 0} for n in range(300)]
    pq.write_table(pa.Table.from_pylist(flat), parquet)
    assert run_job(folder, "jobs.index_documents", str(parquet), **database.env()).returncode == 0
    with_gaps = held(folder, database)
    database.stop()
    database.start()
    more = ("--workers", "2", "--gpus", "0.5")
    env = {"RAY_AUTH_MODE": "disabled", **database.env()}
    head = RayHead(num_cpus=6, num_gpus=1, python=python_of(on_ray))
    with head.running(on_ray / "config/ray.env", **database.env()):
        for file, expected in ((path, alone), (parquet, with_gaps)):
            done = run_job(on_ray, "jobs.index_documents_ray", str(file), *more, RAY_ADDRESS=head.address, **env)
            assert done.returncode == 0, done.stderr[-3000:]
            assert same(held(folder, database), expected)
        changed = write_lines(tmp_path / "changed.jsonl", documents(50))
        done = subprocess.run(
            [str(python_of(on_ray)), "-c", CHANGED, str(changed)],
            cwd=on_ray,
            env=environment(on_ray, RAY_ADDRESS=head.address, **env),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    said = f"not indexed: DocumentError: {changed} changed while it was indexed: run it again"
    assert said in done.stderr.splitlines()  # Ray says more, before and after it
    assert written(database) == 5300
