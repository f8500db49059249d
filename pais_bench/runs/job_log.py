"""Tell from the log of a job, which has all of its attempts, how the last one ended."""

from __future__ import annotations

from pathlib import Path

CONTINUE = "run the same command to continue"
"""What the last line of an attempt says that was stopped, and has not failed."""


def was_stopped(log: Path) -> bool:
    """Return whether the last attempt in a log was stopped, by Ctrl-C or by SLURM."""
    lines = log.read_text(errors="replace").split("\n")
    return CONTINUE in next((line for line in reversed(lines) if line.strip()), "")
