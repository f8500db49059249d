"""Define the interactive figures of the page: panels of plotly traces, with one legend for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pais_bench.reports.style import Mark, marks
from pais_bench.study.study import Study

SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"},
    **{"P": "cross", "X": "x", "*": "star"},
}
"""Plotly's name of each marker of matplotlib."""
MAX_POINTS = 100
"""Points of a line; the CSV beside the figure has them all."""

Trace = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """Hold an entry of the legend, which switches the traces whose legendgroup is its name on and off."""

    name: str
    colour: str
    symbol: str = "circle"
    dash: str = "solid"


@dataclass(frozen=True)
class Panel:
    """Hold the traces and the layout of one panel, as plotly takes them; without a trace it is shown as empty."""

    title: str
    traces: Sequence[Trace]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """Hold rows of panels, each with a heading that may be empty, the legend of all of them, and a note below."""

    rows: Sequence[tuple[str, Sequence[Panel]]]
    legend: Sequence[Key] = ()
    note: str = ""


@dataclass(frozen=True)
class Shape:
    """Hold the outline of a mask as an SVG path in pixels of the image, its colour, its numbers and its line."""

    path: str
    colour: str
    text: str
    dashed: bool


@dataclass(frozen=True)
class Gallery:
    """Hold images with the outlines of their masks.

    images: each as a data URI with its width and height in px | titles: of the columns | rows: of each image the shapes
    of each column.
    """

    images: Sequence[tuple[str, int, int]]
    titles: Sequence[str]
    rows: Sequence[Sequence[Sequence[Shape]]]


def legend(study: Study, shown: Iterable[str]) -> list[Key]:
    """Return the entries of those methods of a study that are shown, in its order."""
    present = set(shown)
    return [key(name, mark) for name, mark in marks(study).items() if name in present]


def key(name: str, mark: Mark, dash: str = "solid") -> Key:
    """Return an entry of the legend in the colour and with the symbol of a mark."""
    return Key(name, mark.colour, SYMBOLS[mark.marker], dash)


def line(entry: Key, x: pd.Series, y: pd.Series, hover: str, custom: pd.Series, **options: Any) -> Trace:
    """Return a trace of lines and markers in the look of an entry.

    hover is plotly's template of what stands below the name, with custom as %{customdata}; NaN breaks the line.
    """
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": entry.name,
        "legendgroup": entry.name,
        "x": rounded(x),
        "y": rounded(y),
        "customdata": values(custom),
        "hovertemplate": f"<b>%{{fullData.name}}</b><br>{hover}<extra></extra>",
        "line": {"color": entry.colour, "width": 2, "dash": entry.dash},
        "marker": {"color": entry.colour, "symbol": entry.symbol, "size": 7},
    }
    return {**trace, **options}


def means_line(entry: Key, points: pd.DataFrame, column: str, name: str) -> Trace:
    """Return the trace of means over folds at the column place, with their deviations as far as there are any.

    points has folds, percent, the column of the means and, with the suffix _std, of the deviations; name is that of the
    number where it is pointed at.
    """
    deviations = rounded(points[f"{column}_std"].astype(float))
    hover = f"mean of %{{customdata[0]}} folds<br>%{{customdata[1]}} % labels<br>{name} %{{y:.1f}}"
    options: dict[str, Any] = {}
    if any(deviation is not None for deviation in deviations):
        options["error_y"] = {"type": "data", "array": deviations, "color": entry.colour, "thickness": 1.2, "width": 3}
        hover += "<br>± %{error_y.array:.1f}"
    return line(entry, points["place"], points[column], hover, with_percent(points, "folds"), **options)


def with_percent(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return what hover shows of each row: a column, and the percent, which is not where the point is drawn."""
    return pd.Series(list(zip(values(frame[column]), values(frame["percent"]), strict=True)), dtype=object)


def percent_axis(percents: Sequence[float]) -> dict[str, Any]:
    """Return the logarithmic axis of percents, in their order."""
    ends = math.log10(percents[0] / 1.3), math.log10(percents[-1] * 1.3)
    ticks: dict[str, Any] = {"tickvals": [*percents], "ticktext": [f"{percent:g}" for percent in percents]}
    return axis("labelled images (%)", *ends, type="log", **ticks)


def joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return frames as one, MAX_POINTS of each, with a row of NaN after each, at which a line of plotly breaks."""
    parts = list(frames)
    whole = pd.concat(parts, ignore_index=True)
    rows, start = list[Any](), 0
    for part in parts:
        positions = np.linspace(0, len(part) - 1, min(len(part), MAX_POINTS)).round().astype(int)
        rows += [*(start + positions), -1]  # no row has this index
        start += len(part)
    return whole.reindex(rows).reset_index(drop=True)


def axis(title: str, low: float | None = None, high: float | None = None, **options: Any) -> dict[str, Any]:
    """Return an axis with a title, and with a range where both ends are given."""
    limits = {} if low is None or high is None else {"range": [round(low, 4), round(high, 4)]}
    return {"title": {"text": title}, **limits, **options}


def rounded(numbers: pd.Series, digits: int = 4) -> list[float | None]:
    """Return numbers as JSON has them: None for NaN."""
    return [None if pd.isna(number) else round(float(number), digits) for number in numbers]


def values(column: pd.Series) -> list[Any]:
    """Return a column as JSON has it: whole numbers without a fraction, None for NaN."""
    items = ((None if pd.isna(item) else item) for item in column.tolist())
    return [int(item) if isinstance(item, float) and item.is_integer() else item for item in items]
