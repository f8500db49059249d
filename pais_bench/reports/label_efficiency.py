"""How many labels does each method save? AP against the percent of labelled images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pais_bench.config import Study
from pais_bench.reports._cells import cells
from pais_bench.reports._style import draw, empty, legend, marks, write_csv
from pais_bench.results import Results

COLUMNS = ["network", "method", "percent", "folds", "AP", "AP_std"]


class Report:
    """Write label_efficiency.pdf, .png, and .csv with what is drawn."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Draw a panel per network and a line per method; error bars are the sample standard deviation over folds."""
        points = cells(study, results)[COLUMNS].dropna(subset=["AP"])
        size = (0.5 + 3.0 * len(study.networks), 3.0)
        return [
            *draw(lambda figure: _paint(figure, study, points), size, folder, "label_efficiency"),
            write_csv(folder / "label_efficiency.csv", points),
        ]


def _paint(figure: Figure, study: Study, points: pd.DataFrame) -> None:
    panels = figure.subplots(1, len(study.networks), sharex=True, sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, study.networks, strict=True):
        _scale(axes, sorted(study.split.percents))
        _lines(axes, study, points[points["network"] == network])
        axes.set_title(network if len(panels) > 1 else "")
    panels[0].set_ylabel(f"mask AP of the {study.model} (%)")
    if not points.empty:
        panels[0].set_ylim(bottom=0)
    folds = len(study.split.folds)
    entries = [mark.handle(method) for method, mark in marks(study).items()]
    legend(figure, [*entries], f"mean ± s.d. of {folds} folds" if folds > 1 else None)


def _scale(axes: Axes, percents: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(percents[0] / 1.25, percents[-1] * 1.25)
    axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("labelled images (%)")


def _lines(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    if points.empty:
        return empty(axes)
    for method, mark in marks(study).items():
        drawn = points[points["method"] == method].sort_values("percent")
        axes.errorbar(
            drawn["percent"],
            drawn["AP"],
            yerr=drawn["AP_std"] if len(study.split.folds) > 1 else None,
            color=mark.colour,
            marker=mark.marker,
            elinewidth=0.8,
            capsize=2,
        )
