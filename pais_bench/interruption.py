"""How does a training end before its last step? By a signal, obeyed after its step; SLURM then queues it again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

INTERRUPTED = 85
"""Exit code of a training that saved and stopped before its last step: the same command goes on."""


class Interrupted(Exception):
    """Say that a run stopped before its last step, with everything saved."""


def obey(stop: Callable[[], None]) -> None:
    """Call stop at SIGTERM and SIGUSR1, what SLURM sends before the time is up or the node is taken."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: stop())


def requeue() -> bool:
    """Put the SLURM job that this is back into the queue, and say whether that was done.

    It keeps its number, so that a workflow waits for it and counts no failure. A job that is being cancelled is left
    alone: whoever cancels wants no second start. Jobs submitted with --no-requeue are refused by SLURM itself.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    try:
        state = ("squeue", "--noheader", "--jobs", job, "--format", "%T")
        asked = subprocess.run(state, capture_output=True, text=True)
        if asked.stdout.strip() != "RUNNING":
            return False
        return subprocess.run(["scontrol", "requeue", job], capture_output=True).returncode == 0
    except OSError:
        return False
