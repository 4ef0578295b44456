"""Download the CustomResourceDefinitions that the manifests are checked by, each in the version and with the sum below.

`python -m scripts.crds [--to FOLDER] [--base URL]`; `--base` names a mirror that has the same paths. The checks find
the folder by the environment variable RAYPATH_CRDS. After a new version: change version, commit and sums here.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "https://github.com"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Source:
    """Files of one project's repository; all that are named here are under the Apache License 2.0."""

    repository: str
    version: str
    commit: str
    folder: str
    sums: dict[str, str]  # file -> SHA-256

    def url(self, base: str, file: str) -> str:
        return f"{base.rstrip('/')}/{self.repository}/raw/{self.commit}/{self.folder}/{file}"


SOURCES = [
    Source(
        "ray-project/kuberay",
        "v1.7.0",
        "59d663aeec13760646da3db9c1cf8cfe883e30b7",
        "ray-operator/config/crd/bases",
        {
            "ray.io_rayjobs.yaml": "01a5cf3b17c1769fda44af7e82debcd98722f0c27b9ab84d084681c6649121f5",
            "ray.io_rayservices.yaml": "0a8fc325e6e22b9231c1f282b309555e2ecf94227ca20a03df3d1d9a403907ab",
        },
    ),
    Source(
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "f8fafd475f3d132e239432ae6172de60a6cb6516",
        "example/prometheus-operator-crd",
        {
            "monitoring.coreos.com_podmonitors.yaml": (
                "45a93443daa687d3654f7e9631909ff7edcdf3ec09c5e60251b74aa2722aee5d"
            ),
            "monitoring.coreos.com_prometheusrules.yaml": (
                "78be98554b9c8506ab2b4f4feb91c5f3a56e536a0a510f3a8e876a459970d56d"
            ),
            "monitoring.coreos.com_servicemonitors.yaml": (
                "a99047972c9dd7679ce2050b9968e8a08773492e671b3e17abd476d42aa78a32"
            ),
        },
    ),
    Source(
        "kubernetes-sigs/gateway-api",
        "v1.6.1",
        "8bb74df00e56ec8f944d48c25e6c1c9c2f6848e3",
        "config/crd/standard",
        {
            "gateway.networking.k8s.io_httproutes.yaml": (
                "a424a0d6c953b162e71d1d97bb7e75012d8f1ac264e7274f2763d1b96ab39852"
            ),
        },
    ),
    Source(
        "external-secrets/external-secrets",
        "v2.9.0",
        "378bdb622ed9712ef4a58370f6a17af033b7d343",
        "config/crds/bases",
        {
            "external-secrets.io_externalsecrets.yaml": (
                "5044be5a610ca90a075f34f03ed20b462695c43387ba9410db7f4250e47b1e2f"
            ),
        },
    ),
]


def fetch(url: str, expected: str) -> bytes:
    """The content at `url`; exits, and says why, if it cannot be had or is not the one that is pinned."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 https, or what --base names
            content: bytes = response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"{url} cannot be downloaded: {error}. Without the network, name a mirror with --base.")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        sys.exit(f"{url} has the SHA-256 {found}, not {expected}: nothing was kept. Is it another version?")
    return content


def readme(sources: list[Source]) -> str:
    """What the files are and under which licence they stand: it goes wherever they go."""
    lines = [
        f"- {', '.join(source.sums)}: {source.repository} {source.version}, commit {source.commit}"
        for source in sources
    ]
    return "\n".join(["CustomResourceDefinitions, unchanged, all under the Apache License 2.0.", "", *lines, ""])


def download(sources: list[Source], target: Path, base: str) -> None:
    """Bring all files into `target`, or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fetched = Path(scratch, "files")
        fetched.mkdir()
        for source in sources:
            for file, expected in source.sums.items():
                (fetched / file).write_bytes(fetch(source.url(base, file), expected))
        (fetched / "README.md").write_text(readme(sources))
        target.mkdir(exist_ok=True)
        for path in fetched.iterdir():
            path.replace(target / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=ROOT / "work" / "crds", help="folder to write (default: work/crds)")
    parser.add_argument("--base", default=BASE, help=f"where the repositories are (default: {BASE})")
    arguments = parser.parse_args()
    download(SOURCES, arguments.to, arguments.base)
    print(f"{sum(len(source.sums) for source in SOURCES)} files are in {arguments.to}. Before `make test`:")
    print(f"  export RAYPATH_CRDS={arguments.to.resolve()}")


if __name__ == "__main__":
    main()
