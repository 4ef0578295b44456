"""Documents whose snippets are run as they stand, in a home folder of their own.

A fenced block says by the words after its language what it is:
    sh                  run with bash; `cd` lasts until the end of the document
    sh network          needs the network, so only its syntax is checked
    sh checkout         commands of this repository's Makefile: only their targets are checked
    sh elsewhere        commands of the service's Makefile that other tests run: only their targets are checked
    sh background       a service: started, awaited, and stopped by the next one or at the end
    diff                applied with `git apply`
    LANG file=PATH      becomes that file; append=PATH is added to its end
    json                must be JSON; with the word `shape`, its keys are those of the answer before it
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PORT_IN_DOCUMENTS = 8000
STARTUP_S = 180

# What a reader has and a test has not is put in their place: the weights of the hub, and packages in .venv.
PRELUDE = """
set -euo pipefail
copier() {
  local operation=$1; shift
  if [ "$operation" = copy ]; then
    local words=(); for word in "$@"; do [ "$word" = --defaults ] || words+=("$word"); done
    command copier copy --defaults --quiet --data model_source="$WEIGHTS" --data model_revision=v1 "${words[@]}"
    prepare "${words[-1]}"
  else
    command copier "$operation" "$@"
    prepare .
  fi
}
prepare() {
  local venv="$VENV"; [ ! -e "$1/service/runtime/features_feast.py" ] || venv="$VENV/feast"
  mkdir -p "$1/.venv"; for part in bin lib pyvenv.cfg; do ln -sfn "$venv/$part" "$1/.venv/$part"; done
  touch -d tomorrow "$1/.venv/.installed"
}
"""


@dataclass(frozen=True)
class Block:
    language: str
    words: list[str]
    text: str
    line: int

    def option(self, name: str) -> str | None:
        return next((word.removeprefix(f"{name}=") for word in self.words if word.startswith(f"{name}=")), None)


def blocks_of(document: Path) -> list[Block]:
    content = document.read_text()
    found = re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2].split(), m[3], content.count("\n", 0, m.start()) + 1) for m in found]


def keys_of(value: Any) -> Any:
    """The keys of nested objects; of a list those of its first member."""
    if isinstance(value, dict):
        return {key: keys_of(member) for key, member in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


@dataclass
class Reader:
    """Somebody who follows documents at a terminal. home: `~`, which holds the template in `raypath`."""

    home: Path
    weights: Path
    port: int
    folder: Path = field(init=False)
    last_output: str = field(init=False, default="")
    _service: "subprocess.Popen[bytes] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.folder = self.home
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE", "MFLAGS"))},
            "HOME": str(self.home),
            "PATH": f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
            "VENV": sys.prefix,
            "WEIGHTS": str(self.weights),
            "PORT": str(self.port),
            "HF_HUB_OFFLINE": "1",
            **{
                f"GIT_{who}_{what}": "reader@example.com"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }

    def follow(self, *documents: Path) -> None:
        """One document after the other; a service that one has started goes on running until another is started."""
        try:
            for document in documents:
                self.folder = self.home
                for block in blocks_of(document):
                    self._do(block, f"{document.relative_to(ROOT)}:{block.line}")
        finally:
            self.stop_service()

    def run(self, script: str, where: str) -> None:
        state = self.home / ".folder"
        script = script.replace(f"127.0.0.1:{PORT_IN_DOCUMENTS}", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-c", f"{PRELUDE}\n{script}\npwd > {state}"],
            check=False,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{where} ended with status {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.last_output = done.stdout
        self.folder = Path(state.read_text().strip())

    def stop_service(self) -> None:
        """Ctrl-C, as the documents say."""
        if self._service is None:
            return
        service, self._service = self._service, None
        os.killpg(service.pid, signal.SIGINT)
        try:
            service.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)
            service.wait()
            raise

    def _do(self, block: Block, where: str) -> None:
        if block.language == "sh" and "network" in block.words:
            text = block.text.replace("<address of this repository>", "address")
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        elif block.language == "sh" and {"checkout", "elsewhere"} & set(block.words):
            folder = ROOT if "checkout" in block.words else self.home / "text-service"
            for target in re.findall(r"^make (\S+)", block.text, re.MULTILINE):
                subprocess.run(["make", "--dry-run", target], cwd=folder, check=True, capture_output=True)
        elif block.language == "sh" and "background" in block.words:
            self._start(block.text, where)
        elif block.language == "sh":
            self.run(block.text, where)
        elif block.language == "diff":
            (self.home / "change.diff").write_text(block.text)
            self.run("git apply ~/change.diff", where)
        elif block.language == "json":
            shape = keys_of(json.loads(block.text))
            if "shape" in block.words:
                came = self.last_output.splitlines()[-1]
                assert shape == keys_of(json.loads(came)), f"{where} is not what came: {came}"
        elif path := block.option("file"):
            (self.folder / path).write_text(block.text)
        elif path := block.option("append"):
            yaml.safe_load(block.text)
            with (self.folder / path).open("a") as file:
                file.write(block.text)
        else:
            raise AssertionError(f"{where}: no rule for a block of {block.language} {block.words}: see documents.py")

    def _start(self, command: str, where: str) -> None:
        self.stop_service()
        log = self.home / "service.log"
        with log.open("wb") as output:
            self._service = subprocess.Popen(
                ["bash", "-c", PRELUDE + command],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTUP_S
        while time.monotonic() < deadline and self._service.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{where}: the service did not get ready\n{log.read_text(errors='replace')[-4000:]}")


def copy_anew(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
