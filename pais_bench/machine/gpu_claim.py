"""Share the GPUs of this machine among its processes, each with its own, by locks that end with a process."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from pais_bench.errors import BenchError
from pais_bench.machine.gpu import read_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS = 2.0
"""Between two looks for a free GPU."""


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where no driver lists one."""
    try:
        count = len(read_gpus())
    except BenchError:  # `pais-bench doctor` tells it
        return []
    shown = os.environ.get(VISIBLE)
    if not count or shown is None:
        return [str(index) for index in range(count)]
    # CUDA shows those before the first name that stands for no GPU.
    names = (name.strip() for name in shown.split(","))
    return list(takewhile(lambda name: name and (not name.lstrip("-").isdigit() or 0 <= int(name) < count), names))


def claim_gpus(gpus: Sequence[str], count: int, on_wait: Callable[[str], None]) -> None:
    """Show CUDA the first `count` of the named GPUs that no other process has claimed; wait until so many are free.

    They are this process's until it ends, and processes that it starts see the same. on_wait is told once where it has
    to wait. Raises BenchError where fewer GPUs are named.
    """
    if count > len(gpus):
        raise BenchError(f"--devices {count}: --gpus names {len(gpus)}, {','.join(gpus)}; name more of them")
    folder = Path(tempfile.gettempdir()) / f"pais_bench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while True:
        with (folder / "turn").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # or two that want several GPUs would each hold what the other lacks
            claimed: dict[str, int] = {}
            for name in gpus:
                if len(claimed) < count and (lock := _try_lock(folder / quote(name, safe=""))) is not None:
                    claimed[name] = lock
            if len(claimed) == count:
                os.environ[VISIBLE] = ",".join(claimed)
                return
            for lock in claimed.values():
                os.close(lock)
        if not waiting:
            on_wait(f"waiting for {count} of the GPUs {','.join(gpus)}, which other trainings have claimed")
        waiting = True
        time.sleep(SECONDS)


def _try_lock(path: Path) -> int | None:
    """Return the descriptor of the locked file; None where another process has locked it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
