"""Who trains in this folder? One process at a time, by a file that its owner touches as long as it lives.

A controller that was killed leaves its jobs running, and the next one submits them again: without a lock two trainings
would write one checkpoint. Nobody compares clocks: who finds a lock watches whether it is touched.
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

from pais_bench.types import BenchError

BEAT = 5.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without one after which an owner on another machine counts as dead."""


class Lock:
    """Hold lock.json of a run's folder: host, pid, job and start of its owner, and a token of its own."""

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self.beat, self.stale = folder / "lock.json", beat, stale
        self.token = uuid.uuid4().hex
        self._released = threading.Event()

    def __enter__(self) -> Lock:
        """Take the lock, also from an owner that died; raise BenchError that names one that lives."""
        while not self._create():
            seen = self._look()
            if seen is None:
                continue
            if not _dead(seen[1]):
                self._watch(seen)
            self._take_over(seen)
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock, unless somebody has taken it over."""
        self._released.set()
        if self._mine():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise BenchError where another process has taken the lock over: it writes this folder now."""
        if not self._mine():
            seen = self._look()
            owner = _told(seen[1]) if seen else "somebody who removed its lock"
            raise BenchError(f"{self.path.parent}: taken over by {owner}; nothing more is written from here")

    def _create(self) -> bool:
        about = {
            "host": platform.node(),
            "pid": os.getpid(),
            "processes": _processes(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": self.token,
        }
        try:
            place = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(place, "w") as file:
            file.write(json.dumps(about) + "\n")
        return True

    def _look(self) -> tuple[int, dict[str, Any]] | None:
        """Give when the lock was touched, in its file system's time, and its content; None where there is none."""
        try:
            with self.path.open() as file:  # opened first: a network file system then gives its latest state
                touched, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        return touched, found if isinstance(found, dict) else {}

    def _watch(self, first: tuple[int, dict[str, Any]]) -> None:
        """Return when the lock is gone, or has not been touched for long; raise BenchError as soon as it is."""
        begun = time.monotonic()
        while time.monotonic() - begun < self.stale:
            time.sleep(min(self.beat, self.stale) / 5)
            seen = self._look()
            if seen is None:
                return
            if seen != first:
                raise BenchError(
                    f"{self.path.parent}: {_told(seen[1])} trains here, and was alive "
                    f"{time.monotonic() - begun:.0f} s after this one began; wait for it, or end it, and try again"
                )

    def _take_over(self, seen: tuple[int, dict[str, Any]]) -> None:
        """Remove a lock that is still the one that was seen; of many that try, the others find what the first made."""
        aside = self.path.with_name(f"lock.{self.token}")
        with _in_turn(self.path.parent):
            if self._look() != seen:
                return
            try:
                os.rename(self.path, aside)
            except FileNotFoundError:
                return
        aside.unlink()

    def _mine(self) -> bool:
        seen = self._look()
        return seen is not None and seen[1].get("token") == self.token

    def _touch(self) -> None:
        """Touch the lock until it is released or lost; a touch needs no space on a full disk."""
        while not self._released.wait(self.beat):
            try:
                if not self._mine():
                    return
                os.utime(self.path)
            except OSError:
                continue


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Let one process at a time look at a lock and remove it, or the second would remove what the first has made since.

    A file system that cannot lock a folder leaves it to Lock.check to find that out, before anything is written.
    """
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)  # which unlocks


@contextmanager
def alone(folder: Path, fabric: Any) -> Iterator[Lock]:
    """Hold the lock of a run's folder on the first rank; where that is refused, every rank raises its BenchError."""
    lock, fault = Lock(folder, BEAT, STALE), ""
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.__enter__()
        except BenchError as error:
            fault = str(error)
    fault = fabric.broadcast(fault)
    if fault:
        raise BenchError(fault)
    try:
        yield lock
    finally:
        if fabric.is_global_zero:
            lock.__exit__()


def _dead(owner: dict[str, Any]) -> bool:
    """Say whether the owner is a process of this very machine that is no more."""
    if owner.get("host") != platform.node() or owner.get("processes") != _processes():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return True
    except PermissionError:
        return False
    return False


def _processes() -> str:
    """Name the set of processes that a pid counts in: two containers of one host may have one each."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _told(owner: dict[str, Any]) -> str:
    job = f", SLURM job {owner['job']}" if owner.get("job") else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job}, since {owner.get('since', '?')},"
