"""Where is the Python of an environment? `python3 envs/build.py NAME` prints it, and first builds what is absent.

An environment is a folder .envs/NAME-PINS, named by what its lock envs/NAME.txt pins: changed pins make another folder
and leave the old one to the jobs that run in it. Its file READY is written last. Runs on any python3 >= 3.8 that has
venv or pip.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "envs"
OLDEST_PYTHON = {"workflow": "3.11", "dev": "3.11"}
"""Snakemake needs 3.11; all else runs from 3.10 on."""


def folder(name: str) -> Path:
    """Give an environment's folder, relative to the project, so that a project that moves keeps its runs.

    Hashes and comments of the lock do not count: only other versions are another environment.
    """
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    pins = [line.split(" \\")[0].split("  #")[0] for line in lines if line[:1].isalnum()]
    return Path(".envs", f"{name}-{hashlib.sha256(chr(10).join(pins).encode()).hexdigest()[:12]}")


def build(name: str) -> Path:
    """Give an environment's Python, built on first use."""
    home = folder(name)
    python = home / "bin" / "python"
    if (home / "READY").exists():
        return python
    with _alone():
        if not (home / "READY").exists():
            began = time.monotonic()
            uv = _uv()
            _say(f"environment {name}: installing envs/{name}.txt into {home}")
            _run(uv, "venv", "--quiet", "--clear", "--python", f">={OLDEST_PYTHON.get(name, '3.10')}", home)
            install = (uv, "pip", "install", "--python", python)
            _run(*install, "--compile-bytecode", "--require-hashes", "-r", LOCKS / f"{name}.txt")
            _run(*install, "--no-deps", "--no-build-isolation", "-e", ".")
            _ready(home)
            _say(f"environment {name}: ready after {time.monotonic() - began:.0f} s")
    return python


def _uv() -> Path:
    """Give the pinned uv; a venv or a pip of any python3 is enough to install it."""
    home = folder("uv")
    if not (home / "READY").exists():
        _say(f"uv: installing it into {home}")
        into = _venv(home) or _target(home)
        _run(*into, "--quiet", "--require-hashes", "-r", LOCKS / "uv.txt")
        _ready(home)
    return home / "bin" / "uv"


def _venv(home: Path) -> tuple[str | Path, ...]:
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", home], capture_output=True)
    return () if made.returncode else (home / "bin" / "python", "-m", "pip", "install")


def _target(home: Path) -> tuple[str | Path, ...]:
    pip = (sys.executable, "-m", "pip")
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        sys.exit(
            f"envs/build.py: {sys.executable} has neither venv nor pip; install one of them "
            f"(Debian and Ubuntu: apt-get install python3-venv) and try again"
        )
    return (*pip, "install", "--target", home)


def _run(*words: str | Path) -> None:
    """Run a command; what it says goes to stderr, since stdout is for the answer."""
    done = subprocess.run(words, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"envs/build.py: failed, for the reason above: {' '.join(map(str, words))}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process build at a time; the system frees the lock of a process that dies."""
    Path(".envs").mkdir(exist_ok=True)
    with open(".envs/lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that builds an environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ready(home: Path) -> None:
    partial = home / "READY.partial"
    partial.write_text(f"{home.name}\n")
    os.replace(partial, home / "READY")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    known = sorted(path.stem for path in LOCKS.glob("*.in"))
    if len(sys.argv) != 2 or sys.argv[1] not in known:
        sys.exit(f"usage: python3 envs/build.py NAME, where NAME is one of {', '.join(known)}")
    os.chdir(ROOT)
    print(_uv() if sys.argv[1] == "uv" else build(sys.argv[1]))
