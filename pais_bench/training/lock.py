"""Let one process at a time train in a folder, by a lock file that its owner touches as long as it lives.

A controller that was killed leaves its jobs running, and the next one submits them again: without a lock two trainings
would write one checkpoint. No clocks are compared: a process that finds a lock watches whether it is touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pais_bench.errors import BenchError, describe_fault
from pais_bench.runs.files import LOCK
from pais_bench.runs.lock_owner import is_dead, pid_namespace

BEAT = 5.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without a touch after which an owner on another machine counts as dead."""

State = tuple[int, dict[str, Any]]
"""When a lock was touched last, in ns of its file system's clock, and its content, the owner."""


class Lock:
    """Hold lock.json of a run's folder: host, pid, job and start of its owner, and a unique token."""

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self.beat, self.stale = folder / LOCK, beat, stale
        self.token = uuid.uuid4().hex
        self._released = threading.Event()

    def __enter__(self) -> Lock:
        """Take the lock, also from an owner that died; raise BenchError that names an owner that lives."""
        while not self._create():
            state = self._read()
            if state is None:
                continue
            if not is_dead(state[1]):
                self._wait_until_stale(state)
            self._remove(state)
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock, unless another process has taken it over."""
        self._released.set()
        if self._is_ours():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise BenchError where another process has taken the lock over and writes this folder now."""
        if not self._is_ours():
            state = self._read()
            fault = f"taken over by {_describe(state[1])}" if state else "its lock was removed"
            raise BenchError(f"{self.path.parent}: {fault}; nothing more is written from here")

    def _create(self) -> bool:
        owner = {
            "host": platform.node(),
            "pid": os.getpid(),
            "processes": pid_namespace(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": self.token,
        }
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(owner) + "\n")
        return True

    def _read(self) -> State | None:
        """Return the state of the lock; None where there is none."""
        try:
            with self.path.open() as file:  # opened first: a network file system then gives its latest state
                touched, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except FileNotFoundError:
            return None
        try:
            owner = json.loads(text)
        except ValueError:
            owner = None
        return touched, owner if isinstance(owner, dict) else {}

    def _wait_until_stale(self, first: State) -> None:
        """Wait until the lock is gone or stale; raise BenchError as soon as it is touched."""
        begin = time.monotonic()
        while time.monotonic() - begin < self.stale:
            time.sleep(min(self.beat, self.stale) / 5)
            state = self._read()
            if state is None:
                return
            if state != first:
                raise BenchError(
                    f"{self.path.parent}: {_describe(state[1])}, trains here, and was alive "
                    f"{time.monotonic() - begin:.0f} s after this one began; wait for it, or end it, and try again"
                )

    def _remove(self, state: State) -> None:
        """Remove the lock if it is still in this state, so that of many processes that try one takes it over."""
        aside = self.path.with_name(f"lock.{self.token}")
        with _exclusive(self.path.parent):
            if self._read() != state:
                return
            try:
                os.rename(self.path, aside)
            except FileNotFoundError:
                return
        aside.unlink()

    def _is_ours(self) -> bool:
        state = self._read()
        return state is not None and state[1].get("token") == self.token

    def _touch(self) -> None:
        """Touch the lock until it is released or lost; a touch needs no space on a full disk."""
        while not self._released.wait(self.beat):
            try:
                if not self._is_ours():
                    return
                os.utime(self.path)
            except OSError:
                continue


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time compare and remove a lock, or a second would remove the lock that the first has made.

    Where a file system cannot lock a folder, Lock.check finds the other owner before anything is written.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which unlocks


@contextmanager
def lock_folder(folder: Path, fabric: Any) -> Iterator[Lock]:
    """Hold the lock of a run's folder on the first rank; where it cannot be had, every rank raises its BenchError."""
    lock, fault = Lock(folder, BEAT, STALE), ""
    if fabric.is_global_zero:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.__enter__()
        except BenchError as error:
            fault = str(error)
        except OSError as error:
            fault = describe_fault(error) or str(error)
    fault = fabric.broadcast(fault)
    if fault:
        raise BenchError(fault)
    try:
        yield lock
    finally:
        if fabric.is_global_zero:
            lock.__exit__()


def _describe(owner: dict[str, Any]) -> str:
    job = f", SLURM job {owner['job']}" if owner.get("job") else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job}, since {owner.get('since', '?')}"
