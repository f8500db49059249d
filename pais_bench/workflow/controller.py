"""Run Snakemake as a process of its own: its output goes to a file, and signals go to it and to its jobs."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are passed on: the Ctrl-C of a terminal, its end, and a polite kill."""

_PROGRESS = re.compile(r"^(?:\d\d:\d\d:\d\d |(?=environment |uv: ))(.+)$", re.MULTILINE)
_ERROR = re.compile(r"^pais-bench \S+: error: .+$", re.MULTILINE)


class Controller:
    """Hold a running Snakemake and the signals that came meanwhile, in their order.

    Snakemake leads a session, so that a signal reaches all jobs of this machine exactly once: the trainings save at the
    first Ctrl-C, and end without saving at the second.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start the command; log is the file of its output, or one beside it with this process's number in its name.

        It is written anew; the other is for where another run is writing it.
        """
        self.signals: list[signal.Signals] = []
        self._process: subprocess.Popen[bytes] | None = None
        # Before the start: a signal in between would end this process alone, and leave Snakemake without one.
        passed = [number for number in SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
        self._before = {number: signal.signal(number, self._pass_on) for number in passed}
        log.parent.mkdir(parents=True, exist_ok=True)
        with _open_own(log) as output:
            self.log = Path(output.name)
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        for number in tuple(self.signals):
            self._signal(number)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code of Snakemake, or None where it goes on after this time."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return code

    def stop(self) -> None:
        """Let the jobs save and end, as a Ctrl-C does, and wait for Snakemake's end."""
        self._pass_on(signal.SIGINT, None)
        while self.wait(60) is None:
            pass

    def last_progress(self) -> str:
        """Return the last line in which a command or envs/build.py says what it does; nothing before the first one."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 65536))
            lines = _PROGRESS.findall(file.read().decode(errors="replace"))
        return lines[-1] if lines else ""

    def errors(self) -> list[str]:
        """Return the errors of all commands in one sentence each, once each."""
        return list(dict.fromkeys(_ERROR.findall(self.log.read_text(errors="replace"))))

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines of the output."""
        return self.log.read_text(errors="replace").splitlines()[-count:]

    def _pass_on(self, number: int, _: object) -> None:
        self.signals.append(signal.Signals(number))
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _is_ignored(number: signal.Signals) -> bool:
    """Return whether this process was started to ignore a signal, as nohup does it with the end of a terminal."""
    return signal.getsignal(number) == signal.SIG_IGN


def _open_own(log: Path) -> IO[bytes]:
    """Open a log for this run alone, empty; the lock lasts as long as a process of the run has it open."""
    output = log.open("ab")
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        output.close()
        return log.with_name(f"{log.stem}-{os.getpid()}.log").open("wb")
    except OSError:  # a file system without locks
        pass
    output.truncate(0)
    return output
