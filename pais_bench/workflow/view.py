"""Show the progress of a study's runs: a table for a terminal, or a line for each thing that happened."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pais_bench.workflow.progress import STATES, RunProgress, training_seconds_left

if TYPE_CHECKING:
    from rich.table import Table

NAMES = ("split", "network", "method")
COLUMNS = (*NAMES, "state", "step", "steps/s", "left", "mask AP")
_STYLES = {"training": "bold", "stopped": "yellow", "waiting": "dim", "done": "green"}
_INTEREST = ("training", "stopped", "predicted", "trained", "done", "waiting")
"""Which runs a table shows first where the terminal has no room for all."""


def is_terminal() -> bool:
    """Return whether standard output is a terminal that draws tables; NO_COLOR and TERM=dumb say that it is not."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def headline(runs: list[RunProgress]) -> str:
    """Return how many runs are done and left, and the time to the end of the trainings."""
    counts = Counter(run.state for run in runs if not run.is_burn_in)
    parts = [f"{counts['done']} of {counts.total()} runs done"]
    parts += [f"{counts[state]} {state}" for state in reversed(STATES[:-1]) if counts[state]]
    left = training_seconds_left(runs)
    if left != 0:
        parts.append(_duration(left))
    return ", ".join(parts)


def table(runs: list[RunProgress], rows: int, note: str = "") -> Table:
    """Return the table of a grid, of at most `rows` runs: those that train come before those that wait.

    Steps per second are of the time of training up to the last logged step, and what is left of a training is at that
    pace. note are lines below it: what the workflow does now.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = sorted(range(len(runs)), key=lambda index: _INTEREST.index(runs[index].state))[: max(1, rows)]
    title: Any = {"title": Text(headline(runs)), "title_justify": "left", "caption_justify": "left"}
    grid = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, **title)
    shown_runs = [runs[index] for index in sorted(shown)]
    cells = [
        (*_names(run), run.state, f"{run.step} of {run.run.training.steps}", *_pace(run), _percent(run.ap))
        for run in shown_runs
    ]
    for name in COLUMNS:
        # In a narrow terminal rich shrinks columns that may wrap before the others: names are cut, and no number.
        grid.add_column(name, justify="left" if name in (*NAMES, "state") else "right", no_wrap=name not in NAMES)
    for run, row in zip(shown_runs, cells, strict=True):
        texts = (Text(text, no_wrap=True, overflow="ellipsis") for text in row)
        grid.add_row(*texts, style=_STYLES.get(run.state))
    hidden = Counter(runs[index].state for index in set(range(len(runs))) - set(shown))
    more = ", ".join(f"{count} {state}" for state, count in hidden.items())
    lines = [f"and {hidden.total()} more: {more}"] if hidden else []
    grid.caption = Text("\n".join(lines + [note] * bool(note)), no_wrap=True, overflow="ellipsis")
    return grid


def news(before: list[RunProgress], now: list[RunProgress]) -> Iterator[str]:
    """Yield a line for each run that began, was evaluated or ended, and the headline where one is done."""
    finished = False
    for old, new in zip(before, now, strict=True):
        if new.state != old.state or new.ap != old.ap:
            step = f", step {new.step} of {new.run.training.steps}" if new.state in ("training", "stopped") else ""
            ap = "" if new.ap is None else f", mask AP {_percent(new.ap)}"
            yield f"{' '.join(_names(new))}: {new.state}{step}{ap}"
            finished = finished or (new.state == "done" != old.state and not new.is_burn_in)
    if finished:
        yield headline(now)


def _names(run: RunProgress) -> tuple[str, str, str]:
    return run.run.split.stem, run.kind[0], run.kind[1]


def _percent(ap: float | None) -> str:
    return "–" if ap is None else f"{100 * ap:.1f}"


def _pace(run: RunProgress) -> tuple[str, str]:
    """Return the steps per second, and the time that is left of a training."""
    if not run.step or not run.seconds:
        return "–", "–"
    pace = run.step / run.seconds
    left = run.seconds_left({run.kind: 1 / pace}) if run.state == "training" else None
    return f"{pace:.3g}", "–" if left is None else _clock(left)


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else "< 1 min"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time left unknown before the first logged step"
    text = _clock(seconds)
    return f"{'less than a minute' if text.startswith('<') else f'about {text}'} of training left"
