"""Write event files of TensorBoard into a folder, a sub-folder per run; `tensorboard --logdir FOLDER` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pais_bench.loggers.base import LoggerBase
from pais_bench.optional_packages import import_package

DEFAULT = "tensorboard"
"""The folder, where none is named."""
INSTALL = "install it there: pip install tensorboard"


class Logger(LoggerBase):
    """Write an event per number; its time is that of training, which TensorBoard's axis "relative" shows."""

    def __init__(self, run: str, to: str) -> None:
        """Open the folder of the run."""
        summary = import_package("tensorboard.summary", INSTALL)
        self._folder = Path(to) / run
        self._last = self._read()
        self._writer = summary.Writer(str(self._folder))

    def last_steps(self) -> dict[str, int]:
        """Return the last step of every tag in the event files that were there."""
        return self._last

    def send(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Write the events, and flush them."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step, wall_time=seconds)
        self._writer.flush()

    def close(self, trained: bool) -> None:
        """Close the event file."""
        self._writer.close()

    def _read(self) -> dict[str, int]:
        loader = import_package("tensorboard.backend.event_processing.event_file_loader", INSTALL)
        last: dict[str, int] = {}
        for path in self._folder.glob("events.out.tfevents.*"):
            for event in loader.EventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    last[value.tag] = max(event.step, last.get(value.tag, -1))
        return last
