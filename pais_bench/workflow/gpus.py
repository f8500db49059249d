"""Read how busy the GPUs of this machine are, as the driver tells it."""

from __future__ import annotations

import csv
import subprocess

COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,name,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)
SECONDS = 5
"""After which a driver that does not answer counts as none."""


def gpu_lines() -> list[str]:
    """Return a line per GPU: its use in percent and its memory in GiB; nothing where there is no driver."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [row for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if len(row) == 5]
    return [f"GPU {index} {name}: {use} %, {_gib(used)} of {_gib(total)} GiB" for index, name, use, used, total in rows]


def _gib(mebibytes: str) -> str:
    """Return a memory in GiB; the driver says [N/A] where it does not know."""
    return f"{int(mebibytes) / 1024:.1f}" if mebibytes.isdigit() else "?"
