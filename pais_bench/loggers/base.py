"""Define what a logger does: it sends the numbers of one run, and knows which of them the service has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

PREFIXES = {"step": "training", "evaluation": "evaluation"}
"""What the names of the numbers of an event begin with."""


class LoggerBase(ABC):
    """Send the numbers of one run to a place of the service; the class is named Logger in each file."""

    @abstractmethod
    def __init__(self, run: str, to: str) -> None:
        """Open the run of this name, new or continued; raise BenchError where the service refuses it."""

    @abstractmethod
    def last_steps(self) -> dict[str, int]:
        """Return the last step that the service has of each number of the run, by name."""

    @abstractmethod
    def send(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Send numbers of a step; seconds is the time of training up to it."""

    @abstractmethod
    def close(self, trained: bool) -> None:
        """Wait until everything is sent; trained: the run is complete."""


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line of log.jsonl, named as training/loss/labelled/mask; lists are left out."""
    values = {name: value for name, value in line.items() if name not in ("event", "step")}
    return dict(_flatten(values, PREFIXES.get(str(line["event"]), str(line["event"]))))


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}/{name}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}/{name}", float(value)
