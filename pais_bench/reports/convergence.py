"""How fast, and how far, does each method learn at each percent of labels?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from pais_bench.config import Study
from pais_bench.reports._style import GREY, Mark, draw, empty, legend, marks, write_csv
from pais_bench.results import Results

BAND = 0.18
STUDENT: Any = {"linewidth": 0.7, "linestyle": (0, (4, 2))}
GROUP = ["network", "method", "percent", "model"]


class Report:
    """Write convergence.pdf, .png, and .csv with what is drawn."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Draw a row of panels per network and a panel per percent: mask AP on the validation images against steps."""
        points = _points(results.curves)
        size = (max(3.5, 1.75 * len(study.split.percents)), 0.8 + 1.7 * len(study.networks))
        return [
            *draw(lambda figure: _paint(figure, study, points), size, folder, "convergence"),
            write_csv(folder / "convergence.csv", points),
        ]


def _points(curves: pd.DataFrame) -> pd.DataFrame:
    """Give mean, minimum and maximum AP in percent 0..100 over the folds, by GROUP and step.

    A step that only some of the begun folds have reached is left out: a mean over changing folds jumps.
    """
    percent = curves.assign(AP=curves["AP"].astype(float) * 100).dropna(subset=["AP"])
    points = (
        percent.groupby([*GROUP, "step"], sort=False)["AP"]
        .agg(AP="mean", AP_min="min", AP_max="max", folds="count")
        .reset_index()
    )
    begun = points.groupby(GROUP, sort=False)["folds"].transform("max")
    return points[points["folds"] == begun].reset_index(drop=True)


def _paint(figure: Figure, study: Study, points: pd.DataFrame) -> None:
    percents, networks = study.split.percents, list(study.networks)
    panels = figure.subplots(len(networks), len(percents), sharex=True, sharey=True, squeeze=False)
    for row, network in enumerate(networks):
        for column, percent in enumerate(percents):
            axes = panels[row, column]
            chosen = points[(points["network"] == network) & (points["percent"] == percent)]
            _panel(axes, study, chosen)
            if row == 0:
                axes.set_title(f"{percent:g} % labels")
            if row == len(networks) - 1:
                axes.set_xlabel("training steps")
        name = f"{network}\n" if len(networks) > 1 else ""
        panels[row, 0].set_ylabel(f"{name}mask AP (%)")
    if not points.empty:
        panels[0, 0].set_ylim(bottom=0)
        panels[0, 0].set_xlim(left=0)
    legend(figure, _entries(study))


def _panel(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if points.empty:
        return empty(axes)
    for method, mark in marks(study).items():
        drawn = points[points["method"] == method].sort_values("step")
        _line(axes, drawn[drawn["model"] == study.model], mark)
        if study.model == "teacher":
            student = drawn[drawn["model"] == "student"]
            axes.plot(student["step"], student["AP"], color=mark.colour, **STUDENT, zorder=1.5)


def _line(axes: Axes, points: pd.DataFrame, mark: Mark) -> None:
    every = max(1, len(points) // 8)
    axes.plot(points["step"], points["AP"], color=mark.colour, marker=mark.marker, markevery=every)
    if (points["folds"] > 1).any():
        axes.fill_between(
            points["step"], points["AP_min"], points["AP_max"], color=mark.colour, alpha=BAND, linewidth=0
        )


def _entries(study: Study) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = [mark.handle(method) for method, mark in marks(study).items()]
    if study.model == "teacher":
        entries.append(Line2D([], [], color="black", label="teacher"))
        entries.append(Line2D([], [], color="black", label="student", **STUDENT))
    if len(study.split.folds) > 1:
        entries.append(Patch(color=GREY, alpha=BAND, linewidth=0, label=f"range of {len(study.split.folds)} folds"))
    return entries
