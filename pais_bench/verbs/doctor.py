"""Tell of every backend where it is installed, which versions do not fit, and the command that installs it.

Looked at are the locked environment of each backend and the Python that runs this; each in a process of its own, so
that a build that crashes is told as well. The exit code is 1 where something is installed and broken.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from runpy import run_path

from pais_bench import plugins, provenance
from pais_bench.environments import FRAMEWORKS, LOCKS, command, installed, misfits
from pais_bench.types import BenchError

READY, BROKEN, ABSENT = 0, 1, 3


def add_arguments(parser: ArgumentParser) -> None:
    """Name the backends; all where none is named."""
    parser.add_argument("backends", metavar="BACKEND", nargs="*", help="backends to look at (default: all)")
    parser.add_argument("--here", action="store_true", help="look at the Python that runs this alone, without another")


def run(arguments: Namespace) -> int:
    """Print a paragraph a backend; raise BenchError for one that there is not."""
    known = sorted({name.split("/")[0] for name in plugins.names("backends")})
    for backend in arguments.backends:
        if backend not in known:
            raise BenchError(f"{backend}: there is no such backend; choose one of {', '.join(known)}")
    if arguments.here:
        return max(_here(backend) for backend in arguments.backends or known)
    return max(_examine(backend) for backend in arguments.backends or known)


def _examine(backend: str) -> int:
    print(backend)
    home = _home(backend)
    states = []
    if home and (home / "READY").exists():
        states.append(_ask(backend, str(home), home / "bin" / "python"))
    else:
        print(f"  locked environment: not built; {command(backend)}{_note(backend)}")
    states.append(_ask(backend, "this Python", Path(sys.executable)))
    return BROKEN if BROKEN in states else READY


def _home(backend: str) -> Path | None:
    """Give the folder of the locked environment; None where this is no checkout."""
    build = LOCKS / "build.py"
    return LOCKS.parent / Path(run_path(str(build))["folder"](backend)) if build.exists() else None


def _note(backend: str) -> str:
    source = LOCKS / f"{backend}.source.txt"
    return f"  ({source.read_text().splitlines()[0].lstrip('# ')})" if source.exists() else ""


def _ask(backend: str, where: str, python: Path) -> int:
    """Let another Python look at itself."""
    words = (python, "-m", "pais_bench", "doctor", "--here", backend)
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode not in (READY, BROKEN, ABSENT):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        print(f"  {where}: broken: {last} (exit code {done.returncode})")
        return BROKEN
    for line in done.stdout.splitlines():
        print(f"  {where}: {line}")
    return done.returncode


def _here(backend: str) -> int:
    """Print what this Python has of a backend, and whether it can be imported."""
    packages = ("torch", "torchvision", *FRAMEWORKS.get(backend, ()))
    have = ", ".join(f"{package} {version}" for package, version in installed(packages).items())
    faults = misfits(packages)
    for fault in faults:
        print(f"does not fit: {fault}; {command(backend)}")
    try:
        for name in plugins.names("backends"):
            if name.startswith(f"{backend}/"):
                plugins.load("backends", name)
    except BenchError as error:
        print(f"not installed: {error}")
        return BROKEN if faults else ABSENT
    except Exception as error:  # a framework may fail in any way
        told = " ".join(str(error).split())[:300]
        print(f"broken: {type(error).__name__}: {told}; it has {have}; {command(backend)}")
        return BROKEN
    print(f"ready: python {provenance.versions()['python']}, {have}")
    return BROKEN if faults else READY
