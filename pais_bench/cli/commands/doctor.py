"""Check every backend: where it is installed, which versions are incompatible, and the command that installs it.

The command checks the locked environment of each backend and the Python that runs it, each in a process of its own, so
that a build that crashes is reported too. The exit code is 1 where a backend is installed and broken.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from runpy import run_path

from pais_bench import plugins, provenance
from pais_bench.errors import BenchError
from pais_bench.provenance import FRAMEWORKS, LOCKS, incompatible_packages, install_command, installed

READY, BROKEN, ABSENT = 0, 1, 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add the backends, and whether other environments are checked."""
    parser.add_argument("backends", metavar="BACKEND", nargs="*", help="backends to check (default: all)")
    parser.add_argument("--here", action="store_true", help="check only the Python that runs this")


def run(arguments: Namespace) -> int:
    """Print a paragraph for each backend; raise BenchError for an unknown one."""
    known = sorted({name.split("/")[0] for name in plugins.names("backends")})
    for backend in arguments.backends:
        if backend not in known:
            raise BenchError(f"{backend}: there is no such backend; choose one of {', '.join(known)}")
    check = _check_this_python if arguments.here else _check_environments
    return max(check(backend) for backend in arguments.backends or known)


def _check_environments(backend: str) -> int:
    print(backend)
    folder = _environment_folder(backend)
    states = []
    if folder and (folder / "READY").exists():
        states.append(_check_python(backend, str(folder), folder / "bin" / "python"))
    else:
        print(f"  locked environment: not built; {install_command(backend)}{_source_note(backend)}")
    states.append(_check_python(backend, "this Python", Path(sys.executable)))
    return BROKEN if BROKEN in states else READY


def _environment_folder(backend: str) -> Path | None:
    """Return the folder of the locked environment; None outside of a checkout."""
    build = LOCKS / "build.py"
    return LOCKS.parent / Path(run_path(str(build))["folder"](backend)) if build.exists() else None


def _source_note(backend: str) -> str:
    source = LOCKS / f"{backend}.source.txt"
    return f"  ({source.read_text().splitlines()[0].lstrip('# ')})" if source.exists() else ""


def _check_python(backend: str, name: str, python: Path) -> int:
    """Run the command in another Python with --here, and print its lines under a name."""
    command = (python, "-m", "pais_bench", "doctor", "--here", backend)
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode not in (READY, BROKEN, ABSENT):
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"  {name}: broken: {last} (exit code {process.returncode})")
        return BROKEN
    for line in process.stdout.splitlines():
        print(f"  {name}: {line}")
    return process.returncode


def _check_this_python(backend: str) -> int:
    """Print a backend's packages in this Python, and whether they can be imported."""
    packages = ("torch", "torchvision", *FRAMEWORKS.get(backend, ()))
    versions = ", ".join(f"{package} {version}" for package, version in installed(packages).items())
    faults = incompatible_packages(packages)
    for fault in faults:
        print(f"incompatible: {fault}; {install_command(backend)}")
    try:
        for name in plugins.names("backends"):
            if name.startswith(f"{backend}/"):
                plugins.load("backends", name)
    except BenchError as error:
        print(f"not installed: {error}")
        return BROKEN if faults else ABSENT
    except Exception as error:  # a framework may fail in any way
        message = " ".join(str(error).split())[:300]
        print(f"broken: {type(error).__name__}: {message}; it has {versions}; {install_command(backend)}")
        return BROKEN
    print(f"ready: python {provenance.versions()['python']}, {versions}")
    return BROKEN if faults else READY
