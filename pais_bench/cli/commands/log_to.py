"""Send the logs of runs to TensorBoard, Weights & Biases or MLflow, while they train or afterwards.

The trainings know nothing of it. What the service has already is not sent again.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pais_bench import plugins
from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.loggers.base import LoggerBase, numbers_of
from pais_bench.runs.files import LOG, RUN
from pais_bench.workflow.new_lines import NewLines

SECONDS = 2.0
"""Between two looks at the logs."""
PARTS = 4
"""Folders at the end of a run's path that name it: data set, split, network, method with digest."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the service, the runs, the place, and whether to go on."""
    parser.add_argument("service", choices=plugins.names("loggers"), help="where the numbers go")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of a run, or one above several")
    defaults = ", ".join(f"{name}: {plugins.load('loggers', name).DEFAULT}" for name in plugins.names("loggers"))
    text = f"folder of TensorBoard, project of W&B, experiment of MLflow (default: {defaults})"
    parser.add_argument("--to", metavar="NAME", help=text)
    parser.add_argument("--follow", action="store_true", help="go on, with runs that begin later too, until Ctrl-C")


def run(arguments: Namespace) -> None:
    """Send what is new; raise BenchError for a folder without a run, and where the service cannot be used."""
    plugin = plugins.load("loggers", arguments.service)
    to = arguments.to or plugin.DEFAULT
    logs: dict[Path, _Log] = {}
    with ExitStack() as stack:
        while True:
            for path in _find_logs(arguments.runs, arguments.follow):
                if path not in logs:
                    logs[path] = _Log(path, plugin.Logger(_name(path.parent), to))
                    stack.callback(logs[path].close)
                    context.print_progress(f"{path.parent}: to {arguments.service}, {to}")
            for log in logs.values():
                log.send()
            if not arguments.follow:
                break
            time.sleep(SECONDS)
    lines = sum(log.sent for log in logs.values())
    context.print_progress(f"{lines} new lines of {len(logs)} runs sent to {arguments.service}, {to}")


def _find_logs(folders: list[Path], follow: bool) -> Iterator[Path]:
    """Yield the logs of runs; those that a run keeps of other data are left out, as they are of another training."""
    for folder in folders:
        found = [folder / LOG] if (folder / LOG).exists() else sorted(folder.rglob(LOG))
        found = [path for path in found if path.parent == folder or not path.parent.name.startswith("data-")]
        if not found and not (follow and folder.is_dir()):
            raise BenchError(f"{folder}: no run has a log here; name the folder of a run, below results/runs/")
        yield from found


def _name(folder: Path) -> str:
    return "/".join(folder.resolve().parts[1:][-PARTS:])


class _Log:
    """Send the lines of one log."""

    def __init__(self, path: Path, logger: LoggerBase) -> None:
        self.path, self.logger, self.sent = path, logger, 0
        self._lines, self._last = NewLines(path), logger.last_steps()

    def send(self) -> None:
        """Send the numbers of new lines whose step is above the last one sent."""
        _, lines = self._lines.read()
        for text in lines:
            step, seconds, numbers = self._parse(text)
            new = {name: value for name, value in numbers.items() if step > self._last.get(name, -1)}
            if new:
                self.logger.send(step, seconds, new)
                self._last |= dict.fromkeys(new, step)
                self.sent += 1

    def close(self) -> None:
        """Finish; a run whose run.json is written is complete."""
        self.logger.close((self.path.parent / RUN).exists())

    def _parse(self, text: bytes) -> tuple[int, float, dict[str, float]]:
        """Return the step, the seconds and the numbers of a line."""
        try:
            line = json.loads(text)
            return int(line["step"]), float(line["seconds"]), numbers_of(line)
        except (ValueError, KeyError, TypeError):
            shown = text[:80].decode(errors="replace")
            raise BenchError(f"{self.path}: has a line that is none of a log, {shown}; remove the line") from None
