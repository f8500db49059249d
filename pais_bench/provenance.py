"""Where does a number come from? Commit, versions and hardware, as run.json keeps them; imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pais_bench import __version__

PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy", "pycocotools", "pillow", "pydantic")


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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


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
