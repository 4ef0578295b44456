"""Start a server in a session of its own, know what CPU time it used, and stop its processes and no others."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

TICKS = os.sysconf("SC_CLK_TCK")
LIMIT_S, STOP_S = 180, 5
LOOK_S = 0.2


class StartError(RuntimeError):
    """The server did not answer; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(url: str, body: str) -> Any:
    """The JSON answer to one POST; OSError or ValueError when there is none."""
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


class Process:
    """A command in a session and a temporary folder of its own.

    log: where its output goes. Standard input is a pipe.
    """

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> None:
        # Ray's sockets live here, and the name of a socket may have 107 characters: keep it short.
        self._temp = tempfile.mkdtemp(prefix="rb-")
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **env, "TMPDIR": self._temp},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """SIGTERM to the leader, `STOP_S` seconds, then SIGKILL to what is left of its family."""
        known = self.family()
        if self.popen.poll() is None:
            self.popen.terminate()
            self.send_signal(signal.SIGCONT)  # one that is stopped would not see the other signal
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_S)
        for _ in range(50):
            known = self.family(known)
            if not known:
                break
            for process in known:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.popen.poll()
            time.sleep(0.1)
        if self.popen.stdin:
            self.popen.stdin.close()
        shutil.rmtree(self._temp, ignore_errors=True)

    def family(self, known: Mapping[int, int] = MappingProxyType({})) -> dict[int, int]:
        """Living processes of the leader's session, those in `known`, and all descendants: id -> when it began, ticks.

        Most servers stay in the session, also when a parent dies; BentoML's worker leads one of its own.
        """
        alive = {process: fields for process in _processes() if (fields := _stat_fields(process)) and fields[0] != "Z"}
        mine = {
            process
            for process, fields in alive.items()
            if int(fields[3]) == self.popen.pid or known.get(process) == int(fields[19])
        }
        grown = True
        while grown:
            children = {process for process, fields in alive.items() if int(fields[1]) in mine} - mine
            mine |= children
            grown = bool(children)
        return {process: int(alive[process][19]) for process in mine}

    def cpu_s(self) -> float:
        """CPU seconds that the family's living processes and their awaited children have used so far."""
        fields = [_stat_fields(process) for process in self.family()]
        return sum(sum(map(int, each[11:15])) for each in fields if each) / TICKS

    def send_signal(self, number: int) -> None:
        """Send a signal to the whole family."""
        for process in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def log_tail(self, lines: int = 6) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when the log holds `text` so many times. StartError after LIMIT_S."""
        for _ in self._while_alive():
            if self.log.read_text(errors="replace").count(text) >= times:
                return

    def first_answer(self, url: str, body: str) -> Any:
        """The first answer to `body`. StartError after LIMIT_S."""
        fault: Exception | None = None
        try:
            for _ in self._while_alive():
                try:
                    return post(url, body)
                except (OSError, ValueError) as error:
                    fault = error
        except StartError as error:
            raise StartError(f"{error}\n{url}: {fault}") from fault

    def _while_alive(self) -> Iterator[None]:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            if self.popen.poll() is not None:
                raise StartError(f"it ended with status {self.popen.returncode}:\n{self.log_tail()}")
            yield
            time.sleep(LOOK_S)
        raise StartError(f"not ready in {LIMIT_S} s:\n{self.log_tail()}")


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat_fields(process: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty when the process has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def own_cpu_s() -> float:
    """CPU seconds of this process and of the children that it has waited for: the load client."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def machine_cpu_s() -> tuple[float, float]:
    """CPU seconds that the whole machine has been busy, and that its host has kept from it ("steal")."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS
