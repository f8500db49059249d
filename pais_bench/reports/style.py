"""Set the style of every figure, and write figures and CSVs to disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pais_bench.reports.cells import baseline, bounds
from pais_bench.study.study import Study
from pais_bench.whole_file import open_whole, write_text

GREY, LIGHT_GREY = "#595959", "#8C8C8C"
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#332288", "#661100", "#999933", "#9E7BFF"),
)
"""The palette of Okabe and Ito, Color Universal Design (2008), without black and yellow.

Then four that red-green blindness tells from all others, and from the greys, as well as it does those.
"""
MARKERS = ("s", "^", "D", "v", "P", "X", "*")
SIZES = {"^": 1.1, "v": 1.1, "D": 0.9, "P": 1.25, "X": 1.25, "*": 1.6}
"""Size of a marker where that of a circle or square is 1: of one size, a plus, cross or star has much less area."""
LEAST_SPAN = 5.0
"""Points of AP that an axis spans at least, as two trainings of one method can differ by one or two."""
HANDLE_WIDTH, LETTER_WIDTH = 0.45, 0.065
"""Width in inches of a legend's mark with the space beside it, and of a letter of its label."""
FEW_METHODS, EXTRA_HEIGHT = 6, 0.1
"""Number of methods above which lines lie too close: each further one makes panels higher by so many inches."""
EMPTY_WIDTH = 0.5
"""Width of a column, and height of a row, of panels that have nothing to show, where 1 is that of the others."""

STYLE: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.columnspacing": 1.5,
    "legend.handletextpad": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "lines.markeredgecolor": "white",
    "lines.markeredgewidth": 0.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Mark:
    """Hold the colour and marker of one method in every figure."""

    colour: str
    marker: str

    def look(self, size: float = STYLE["lines.markersize"]) -> dict[str, Any]:
        """Return colour and marker as matplotlib's functions take them; size is that of a circle in points."""
        return {"color": self.colour, "marker": self.marker, "markersize": size * SIZES.get(self.marker, 1.0)}

    def handle(self, label: str) -> Line2D:
        """Return an entry of a legend."""
        return Line2D([], [], label=label, **self.look())


def marks(study: Study) -> dict[str, Mark]:
    """Return the mark of every method, in the study's order; supervised is a grey circle, oracle a light grey plus."""
    fixed = dict.fromkeys(bounds(study), Mark(LIGHT_GREY, "P"))
    if (supervised := baseline(study)) is not None:
        fixed[supervised] = Mark(GREY, "o")
    others = [label for label in study.methods if label not in fixed]
    coloured = {
        label: Mark(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]) for index, label in enumerate(others)
    }
    return {label: (fixed | coloured)[label] for label in study.methods}


def marks_of_others(study: Study, points: pd.DataFrame) -> dict[str, Mark]:
    """Return the mark of each line of another codebase, then of a paper, by the labels in these columns of points.

    A line has the colour of the study's method of its name, or grey. It has the marker of that method too, unless an
    earlier line of its kind and colour has it: then the next free one, so that only the ninth repeats one.
    """
    own, found = marks(study), dict[str, Mark]()
    for kind in ("external", "paper"):
        taken: set[Mark] = set()
        for label, method in points.loc[points[kind] != "", [kind, "method"]].drop_duplicates(kind).to_numpy():
            first = own.get(method, Mark(GREY, "o"))
            ring = [first, *(Mark(first.colour, marker) for marker in ("o", *MARKERS))]
            found[label] = next((mark for mark in ring if mark not in taken), first)
            taken.add(found[label])
    return found


def empty(axes: Axes) -> None:
    """Write into an axes that it has nothing to show: no run yet, or numbers that are undefined."""
    axes.text(0.5, 0.5, "no number", transform=axes.transAxes, ha="center", va="center", color=GREY, style="italic")


def ap_span(ap: pd.Series, deviation: pd.Series) -> tuple[float, float]:
    """Return the ends of an axis of AP in percent, from 0 on.

    It spans LEAST_SPAN, and four times the largest standard deviation over folds, so that points that differ by less
    than their uncertainty stand close together.
    """
    if ap.dropna().empty:
        return 0.0, LEAST_SPAN
    spread = deviation.fillna(0).astype(float)
    low, high = float((ap - spread).min()), float((ap + spread).max())
    margin = max(0.06 * (high - low), (max(LEAST_SPAN, 4 * float(spread.max())) - (high - low)) / 2)
    start = max(low - margin, 0.0)
    return start, start + high - low + 2 * margin


def beside(percent: pd.Series, index: int, count: int) -> pd.Series:
    """Return percents moved apart on a logarithmic axis, so that the error bars of one of count methods can be seen."""
    step = min(1.04, 1.2 ** (1 / max(count - 1, 1)))
    return percent.astype(float).mul(step ** (index - (count - 1) / 2))


def height(least: float, points: pd.DataFrame) -> float:
    """Return the height of a panel in inches that is `least` for FEW_METHODS."""
    return least + EXTRA_HEIGHT * max(points["method"].nunique() - FEW_METHODS, 0)


def shrunken(labels: Sequence[Any], column: pd.Series) -> list[float]:
    """Return the relative size of a panel per label: smaller where no row of a column has it."""
    present = [bool((column == label).any()) for label in labels]
    return [1.0 if filled or not any(present) else EMPTY_WIDTH for filled in present]


def in_unit(seconds: pd.Series) -> tuple[pd.Series, str]:
    """Return times in the unit, s, min or h, that suits the longest of them."""
    longest = seconds.max()
    unit, size = ("h", 3600) if longest > 2 * 3600 else ("min", 60) if longest > 2 * 60 else ("s", 1)
    return seconds / size, unit


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights as little as possible, in their order, until each two are at least a gap apart."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed: list[tuple[float, list[int]]] = []
    for index in order:
        centre, members = heights[index], [index]
        while placed and centre - placed[-1][0] < gap * (len(placed[-1][1]) + len(members)) / 2:
            below, others = placed.pop()
            centre = (below * len(others) + centre * len(members)) / (len(others) + len(members))
            members = others + members
        placed.append((centre, members))
    moved = {
        index: centre + gap * (position - (len(members) - 1) / 2)
        for centre, members in placed
        for position, index in enumerate(members)
    }
    return [moved[index] for index in range(len(heights))]


def method_handles(study: Study, points: pd.DataFrame) -> list[Line2D | Patch]:
    """Return the legend's handles of the methods that have points; of all where none has."""
    drawn = set(points["method"]) & set(study.methods) or set(study.methods)
    return [mark.handle(method) for method, mark in marks(study).items() if method in drawn]


def folds_of(points: pd.DataFrame) -> str:
    """Return how many folds the means are over, such as "3 folds" or "2 to 5 folds"; empty where none is over two."""
    folds = points["folds"].dropna().astype(int)
    least, most = folds[folds > 1].min(), folds.max()
    if not most > 1:
        return ""
    return f"{most} folds" if least == most else f"{least} to {most} folds"


def legend(figure: Figure, handles: list[Line2D | Patch], title: str | None = None) -> None:
    """Add one legend above all panels, in as few rows as its labels allow; further rows make the figure higher."""
    longest = int((figure.get_figwidth() - HANDLE_WIDTH) / LETTER_WIDTH)
    for handle in handles:
        handle.set_label(fill(str(handle.get_label()), longest))
    labels = [str(handle.get_label()) for handle in handles]
    columns = next(
        columns
        for columns in range(max(len(labels), 1), 0, -1)
        if columns == 1 or _legend_width(labels, columns) <= figure.get_figwidth()
    )
    rows = math.ceil(len(labels) / columns)
    columns = math.ceil(len(labels) / rows) if rows else 1
    broken = sum(label.count("\n") for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.17 * (max(rows - 1, 0) + broken))
    figure.legend(handles=handles, title=title, loc="outside upper center", ncols=columns, title_fontsize=8.5)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Return the width in inches of a legend of so many columns, each filled from above."""
    widths = [max(map(len, "\n".join(part).split("\n"))) for part in np.array_split(labels, columns)]
    return sum(HANDLE_WIDTH + LETTER_WIDTH * width for width in widths)


def add_note(figure: Figure, text: str) -> None:
    """Write a sentence below the panels, broken into lines, unless it is empty."""
    if text:
        figure.supxlabel(fill(text, round(19 * figure.get_figwidth())), fontsize=7.5, color=GREY)


def draw(paint: Callable[[Figure], None], size: tuple[float, float], folder: Path, stem: str) -> list[Path]:
    """Paint a figure of size (width, height) in inches and write it as stem.pdf and stem.png, without a date."""
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine()
        figure = Figure(figsize=size, layout=layout)
        FigureCanvasAgg(figure)
        paint(figure)

        # The layout takes long, and is the same for both files: with a layout engine each of them would be drawn twice.
        # Panels of a fixed aspect ratio need a second pass.
        for _ in range(1 + any(axes.get_aspect() != "auto" for axes in figure.axes)):
            layout.execute(figure)
        figure.set_layout_engine(None)
        metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
        return [_write_figure(figure, folder / f"{stem}.{kind}", kind, metadata[kind]) for kind in metadata]


def _write_figure(figure: Figure, path: Path, kind: str, metadata: dict[str, Any]) -> Path:
    # A tenth more bytes, in half the time of zlib's default level.
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind == "png" else {}
    with open_whole(path, "wb") as file:
        figure.savefig(file, format=kind, metadata=metadata, **options)
    return path


def write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Write a frame without its index, numbers but percents to four decimals; return the path.

    The percent of labels names a cell: of COCO's 1/512, 0.1953125 %, a figure would not find the rows of 0.1953.
    """
    decimals = dict.fromkeys(frame.columns.drop("percent", errors="ignore"), 4)
    return write_text(path, frame.round(decimals).to_csv(index=False, lineterminator="\n"))
