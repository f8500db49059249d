"""Tell whether the owner of a run's lock lives (training/lock.py), without torch."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from pais_bench.runs.files import LOCK

FORGOTTEN = 600.0
"""Seconds without a touch after which a lock of another machine is nobody's; its owner touches it every 5 s."""


def is_held(folder: Path) -> bool:
    """Return whether a process trains in a run's folder, as far as its lock tells: one that was killed does not."""
    path = folder / LOCK
    try:
        untouched, owner = time.time() - path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # it is being written
        return True
    return untouched < FORGOTTEN and not (isinstance(owner, dict) and is_dead(owner))


def is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner was a process of this machine that has ended."""
    if owner.get("host") != platform.node() or owner.get("processes") != pid_namespace():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return True
    except PermissionError:
        return False
    return False


def pid_namespace() -> str:
    """Return the pid namespace of this process: two containers of one host may have different ones."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
