"""Describe what a check of the machine found, and ask the programs that tell it."""

from __future__ import annotations

import subprocess
from typing import Literal, NamedTuple

from pais_bench.errors import BenchError

SECONDS = 20
"""After which a program does not answer; SLURM's own give up after 9 s without a controller."""


class Finding(NamedTuple):
    """Hold whether all is well, something may fail (warn) or will (fail), and a sentence; the remedy is its end."""

    level: Literal["ok", "warn", "fail"]
    text: str


def ask(*command: str) -> str | None:
    """Return what a program prints; None where it is not installed.

    Raises BenchError with its last line where it fails, and where it does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchError(f"{command[0]}: {(error.strerror or str(error)).lower()}") from error
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]}: no answer for {SECONDS} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise BenchError(f"{command[0]}: {last.removeprefix(f'{command[0]}: ')}")
    return done.stdout
