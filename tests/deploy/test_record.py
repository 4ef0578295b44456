"""What is kept of deploys: the newest few, and never more than an object of Kubernetes holds."""

from __future__ import annotations

import random
import string

from deploy.record import KEEP, LARGEST_BYTES, Record


def manifest(name: str, size: int = 10, seed: int = 0) -> str:
    noise = "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=size))
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  noise: {noise}\n"


def test_the_newest_are_kept_and_their_numbers_go_on() -> None:
    record = Record(None, "text")
    for number in range(1, KEEP + 3):
        record = Record(record.content(), "text")
        record.add(manifest(f"m{number}"), "now", "")
    assert [each.number for each in record.deploys] == list(range(3, KEEP + 3))
    assert sorted(record.content()["binaryData"]) == [str(each.number) for each in record.deploys]
    assert record.newest()[0]["metadata"]["name"] == f"m{KEEP + 2}"


def test_large_manifests_push_the_oldest_out_and_the_newest_stays() -> None:
    record = Record(None, "text")
    for seed in range(3):
        record.add(manifest(f"m{seed}", 300_000, seed), "now", "")
    content = record.content()
    assert sum(map(len, content["binaryData"].values())) <= LARGEST_BYTES < 2**20
    assert [each.number for each in record.deploys] == [2, 3]


def test_a_manifest_comes_back_as_it_was() -> None:
    text = (
        manifest("one")
        + "---\n"
        + manifest("two").replace("noise:", "text: |\n    ---\n    - a\n  number: '1e3'\n  noise:")
    )
    record = Record(None, "text")
    assert record.manifest(record.add(text, "now", "")) == text
