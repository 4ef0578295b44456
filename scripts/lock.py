"""Pin anew what the generated services depend on (extensions/constraints/) and what developing Raypath needs.

A service's versions come first, worked out from the pyproject.toml rendered for each serving mode and features;
requirements.txt then follows them, so that what we test is what we ship.
"""

import itertools
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import copier

from tests.variants import choices_of

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "extensions" / "constraints"
TORCH = "2.13.0"  # moved by hand: its wheel is the largest by far, and the machines that test keep a copy of it

# What torch brings along where it is built for CUDA, and pins exactly itself: a CPU machine must not install it.
TORCH_CUDA = ("cuda-", "nvidia-", "triton==")


def compiled(source: Path, folder: Path, *options: str) -> str:
    """`source` resolved to pinned versions, one a line."""
    constraint = folder / "torch.txt"
    constraint.write_text(f"torch=={TORCH}\n")
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    limits = ["--python-version", "3.11", "--constraint", str(constraint)]
    output = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *quiet, *limits, *options, str(source)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = [line.replace("+cpu", "") for line in output.splitlines()]  # a local build of the same version
    return "".join(f"{line}\n" for line in lines if not line.startswith(TORCH_CUDA))


def main() -> None:
    warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)  # locks belong to the checkout as it stands
    stores: list[dict[str, str]] = [
        {"features": features} for features in choices_of("features") if features != "feast"
    ]
    stores += [{"features": "feast", "offline_store": store} for store in reversed(choices_of("offline_store"))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = ["--excludes", str(ROOT / "requirements-excluded.txt")]
        feast: list[str] = []
        for serving, store in itertools.product(choices_of("serving"), stores):
            answers = {"serving": serving, **store}
            name = "-".join(value for value in answers.values() if value not in ("none", "duckdb"))
            copier.run_copy(str(ROOT), folder / name, data=answers, defaults=True, quiet=True, vcs_ref="HEAD")
            # All offline stores agree, so that one environment tests them.
            agreed = feast if store["features"] == "feast" else []
            pins = compiled(folder / name / "pyproject.toml", folder, "--extra", "dev", *agreed)
            (CONSTRAINTS / f"{name}.txt").write_text(pins)
            # Feast forces an older redis: it is tested in an environment of its own.
            (feast if store["features"] == "feast" else options).extend(
                ["--constraint", str(CONSTRAINTS / f"{name}.txt")]
            )
        (ROOT / "requirements.txt").write_text(compiled(ROOT / "requirements.in", folder, *options))


if __name__ == "__main__":
    main()
