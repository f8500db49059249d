"""End a training before its last step by a signal, obeyed after the current step; requeue it; let no rank be left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable

INTERRUPTED = 85
"""Exit code of a training that saved and stopped before its last step; the same command continues it."""
PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that sets the signal which a process gets when its parent ends."""


class Interrupted(Exception):
    """Report that a run stopped before its last step, with everything saved."""


def on_signal(stop: Callable[[], None]) -> None:
    """Call stop at SIGTERM and SIGUSR1, which SLURM sends before the time limit or a preemption, and at SIGINT.

    SIGINT is the Ctrl-C of a terminal; a second one raises KeyboardInterrupt. The terminal sends it to the loader
    processes too, which inherit the handlers and have to go on until the training has saved.
    """
    process = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() == process:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            stop()

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: stop())
    signal.signal(signal.SIGINT, interrupt)


def end_with_parent() -> None:
    """Let Linux kill this process when the one that started it ends, in whatever way.

    A rank that waits for another in a collective of its GPU is not told of its end: it would hold the GPU for hours.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def requeue() -> bool:
    """Put the SLURM job of this process back into the queue, and return whether that was done.

    It keeps its number, so that a workflow waits for it and counts no failure. A job that is being cancelled is not
    requeued, as it is to end. SLURM itself refuses jobs that were submitted with --no-requeue.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    try:
        squeue = ("squeue", "--noheader", "--jobs", job, "--format", "%T")
        state = subprocess.run(squeue, capture_output=True, text=True).stdout.strip()
        if state != "RUNNING":
            return False
        return subprocess.run(["scontrol", "requeue", job], capture_output=True).returncode == 0
    except OSError:
        return False
