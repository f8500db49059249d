"""Print the Python of an environment, built on first use: `python3 envs/build.py NAME`.

An environment is a folder .envs/NAME-PINS, named by the pins of its lock envs/NAME.txt and of envs/NAME.source.txt,
which lists packages that are built from source against the torch of the lock. Changed pins make another folder, so jobs
that run in the old one keep it. The file READY is written last. Runs on any python3 >= 3.8 that has venv or pip. The
folder .envs of an installed package lies in ~/.cache/pais_bench.

    python3 envs/build.py NAME --into PREFIX    install the same into an environment of conda (envs/*.post-deploy.sh)
    python3 envs/build.py NAME --offline WHEELS install from a folder of wheels, with this Python (`pais-bench bundle`)
    python3 envs/build.py --conda               write envs/NAME.yaml of every backend, for `snakemake --sdm conda`
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
INSTALLED = ROOT.name == "_project"
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pais_bench") if INSTALLED else ROOT
"""Folder of .envs: the checkout; an installed package may be in a folder that is read-only."""
OLDEST_PYTHON = {"workflow": "3.11", "dev": "3.11", "docs": "3.11"}
"""Snakemake needs 3.11, and docs has the pins of dev; all else runs from 3.10 on."""
SOURCE = {"MMCV_WITH_OPS": "1", "CFLAGS": "-g0 -O2", "CXXFLAGS": "-g0 -O2", "UV_LOCK_TIMEOUT": "7200"}
"""Environment of source builds: with operators, without which mmdet does not import, and without debug symbols."""


def folder(name: str) -> Path:
    """Return an environment's folder, relative to HOME, so that a moved project keeps its runs.

    Hashes and comments of the lock do not count, only versions.
    """
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    if _source(name).exists():
        lines += _source(name).read_text().splitlines()
    pins = [line.split(" \\")[0].split("  #")[0] for line in lines if line[:1].isalnum()]
    return Path(".envs", f"{name}-{hashlib.sha256(chr(10).join(pins).encode()).hexdigest()[:12]}")


def build(name: str, offline: tuple[str | Path, ...] = ()) -> Path:
    """Return an environment's Python, built on first use; offline are options of pip that name a folder of wheels."""
    home = folder(name)
    python = home / "bin" / "python"
    if (home / "READY").exists():
        if INSTALLED:
            _link(home)
        return python
    with _locked(name):
        if not (home / "READY").exists():
            begin = time.monotonic()
            uv = _uv(offline)
            _print(f"environment {name}: installing envs/{name}.txt into {home}")
            wanted = sys.executable if offline else f">={OLDEST_PYTHON.get(name, '3.10')}"
            _run(uv, "venv", "--quiet", "--clear", "--python", wanted, home)
            install(name, uv, python, offline)
            _mark_ready(home)
            _print(f"environment {name}: ready after {time.monotonic() - begin:.0f} s")
    return python


def install(name: str, uv: Path, python: Path, offline: tuple[str | Path, ...] = ()) -> None:
    """Install a lock into a Python, then the source builds against it, then this project."""
    into = (uv, "pip", "install", "--python", python, *offline)
    _run(*into, "--compile-bytecode", "--require-hashes", "-r", LOCKS / f"{name}.txt")
    if _source(name).exists():
        _build_source(name, into, python)
    if INSTALLED:
        _link(python.parent.parent)
    else:
        _run(*into, "--no-deps", "--no-build-isolation", "-e", ".")


def _link(home: Path) -> None:
    """Let an environment import the installed package that asks for it, which may have been updated since."""
    for packages in home.glob("lib/python3*/site-packages"):
        partial = packages / f"pais_bench.{os.getpid()}"
        partial.symlink_to(ROOT.parent, target_is_directory=True)
        os.replace(partial, packages / "pais_bench")


def _source(name: str) -> Path:
    return LOCKS / f"{name}.source.txt"


def _build_source(name: str, into: tuple[str | Path, ...], python: Path) -> None:
    """Build the packages that no index has as a wheel; uv caches one wheel for every torch.

    Operators for GPUs are built where torch sees one, or where FORCE_CUDA=1 and TORCH_CUDA_ARCH_LIST are set.
    """
    script = (
        "import os, torch; print(torch.__version__, torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1')"
    )
    process = subprocess.run((python, "-c", script), stdout=subprocess.PIPE, text=True, check=True)
    torch, cuda = process.stdout.split()
    # The builds ignore these settings; uv selects the cached wheel by them.
    cache_key = ("-C", f"torch={torch}", "-C", f"cuda={cuda}")
    command = (*into, "--no-deps", "--no-build-isolation", *cache_key, "-r", _source(name))
    settings = {**SOURCE, "MAX_JOBS": os.environ.get("MAX_JOBS", str(os.cpu_count()))}
    _print(f"environment {name}: building envs/{name}.source.txt; minutes, unless uv has it in its cache")
    begin = time.monotonic()
    # The build tools, such as ninja, are beside the interpreter.
    path = os.pathsep.join((str(python.parent.absolute()), os.environ.get("PATH", os.defpath)))
    build_process = subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, **settings, "PATH": path})
    while True:
        try:
            _check(build_process.wait(60), command)
            return
        except subprocess.TimeoutExpired:
            _print(f"environment {name}: still building after {(time.monotonic() - begin) / 60:.0f} min")


def _uv(offline: tuple[str | Path, ...] = ()) -> Path:
    """Return the pinned uv; a venv or a pip of any python3 is enough to install it."""
    home = folder("uv")
    if not (home / "READY").exists():
        with _locked("uv"):
            _print(f"uv: installing it into {home}")
            into = _venv(home) or _target(home)
            _run(*into, "--quiet", *offline, "--require-hashes", "-r", LOCKS / "uv.txt")
            _mark_ready(home)
    return home / "bin" / "uv"


def _venv(home: Path) -> tuple[str | Path, ...]:
    process = subprocess.run([sys.executable, "-m", "venv", "--clear", home], capture_output=True)
    return () if process.returncode else (home / "bin" / "python", "-m", "pip", "install")


def _target(home: Path) -> tuple[str | Path, ...]:
    pip = (sys.executable, "-m", "pip")
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        sys.exit(
            f"envs/build.py: {sys.executable} has neither venv nor pip; install one of them "
            f"(Debian and Ubuntu: apt-get install python3-venv) and try again"
        )
    return (*pip, "install", "--target", home)


def _run(*command: str | Path) -> None:
    """Run a command with its output on stderr, since stdout is for the path."""
    _check(subprocess.run(command, stdout=sys.stderr).returncode, command)


def _check(code: int, command: tuple[str | Path, ...]) -> None:
    if code:
        sys.exit(f"envs/build.py: failed, for the reason above: {' '.join(map(str, command))}")


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Let one process at a time build an environment; the system frees the lock of a process that dies."""
    Path(".envs").mkdir(exist_ok=True)
    with open(f".envs/{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _print(f"environment {name}: waiting for another process that builds it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _mark_ready(home: Path) -> None:
    partial = home / "READY.partial"
    partial.write_text(f"{home.name}\n")
    os.replace(partial, home / "READY")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_conda() -> None:
    """Write the conda environments, whose comment names the pins, so that Snakemake rebuilds on other pins."""
    for script in sorted(LOCKS.glob("*.post-deploy.sh")):
        name = script.name.split(".")[0]
        (LOCKS / f"{name}.yaml").write_text(
            f"# Written by `make lock`: a Python, into which {script.name} installs the pins {folder(name).name}.\n"
            f"channels: [conda-forge, nodefaults]\ndependencies: [python=3.11, git, gxx]\n"
        )


def _main(arguments: list[str]) -> None:
    known = sorted(path.stem for path in LOCKS.glob("*.in"))
    here = Path.cwd()
    HOME.mkdir(parents=True, exist_ok=True)
    os.chdir(HOME)
    if arguments == ["--conda"]:
        _write_conda()
    elif len(arguments) == 3 and arguments[0] in known and arguments[1] == "--into":
        install(arguments[0], _uv(), Path(arguments[2], "bin", "python"))
    elif arguments[:1] and arguments[0] in known and (len(arguments) == 1 or arguments[1:-1] == ["--offline"]):
        offline = ("--no-index", "--find-links", here / arguments[2]) if arguments[1:] else ()
        print(Path(HOME if INSTALLED else "", _uv(offline) if arguments[0] == "uv" else build(arguments[0], offline)))
    else:
        options = "[--into PREFIX | --offline WHEELS]"
        sys.exit(f"usage: python3 envs/build.py NAME {options}, where NAME is one of {', '.join(known)}")


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except KeyboardInterrupt:
        _print("envs/build.py: ended by Ctrl-C; run the same command to continue")
        sys.exit(130)
