"""Where does a number come from? Commit, versions and hardware, as run.json keeps them; imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

from pais_bench import __version__
from pais_bench.environments import FRAMEWORKS, installed, require_locked

PACKAGES = (
    *("torch", "torchvision", "lightning-fabric", "numpy", "pycocotools", "pillow", "pydantic"),
    *(package for packages in FRAMEWORKS.values() for package in packages),
)


def commit() -> str:
    """Give the commit of the source, with '+changes' if files differ from it, or the installed version."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"pais-bench {__version__}"


def versions() -> dict[str, str]:
    """Give the versions of Python and of every package that may change a number and is installed."""
    return {"python": platform.python_version(), **installed(PACKAGES)}


def require_versions(lock: str | None) -> None:
    """Raise BenchError where a package that may change a number is not the one of a lock; None asks nothing."""
    if lock is not None:
        require_locked(lock, PACKAGES)


def hardware(device: str, devices: int, threads: int) -> dict[str, Any]:
    """Give the processor, the device that trained, and the peak of this process's memory in MiB."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "devices": devices,
        "threads": threads,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()
