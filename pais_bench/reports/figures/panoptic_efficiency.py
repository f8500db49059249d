"""Plot panoptic quality of all classes, things and stuff against the percent of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pais_bench.errors import NothingToShow
from pais_bench.reports.cells import PANOPTIC_MEANS
from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import panoptic_efficiency as charts
from pais_bench.reports.figure import FigureReport, shown
from pais_bench.reports.results import Results
from pais_bench.reports.style import ap_span, beside, draw, empty, folds_of, height, legend, marks, method_handles
from pais_bench.study.study import Study

CELL = ["network", "method", "classes", "percent"]


class Report(FigureReport):
    """Draw a row of panels per network, a panel per mean, and a line per method."""

    title = "Panoptic quality against labels"
    text_columns = ("network", "method", "classes")
    number_columns = ("percent", "folds", "PQ", "PQ_std")
    optional_columns = ("PQ_std",)
    captions = {
        "panoptic_efficiency": "Panoptic quality of all classes, things and stuff against the percent of labelled "
        "images, on a logarithmic axis. Means over the finished folds; error bars: sample standard deviation."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return PQ in percent 0..100; raise NothingToShow where the study does not measure it."""
        done = results.runs[results.runs["state"] == "done"]
        present = [column for column in PANOPTIC_MEANS if column in done]
        if not present:
            raise NothingToShow("the study does not measure panoptic quality; add 'panoptic' to its metrics")
        rows = done.melt(["network", "method", "percent"], present, "classes", "PQ").dropna(subset=["PQ"])
        rows = rows.assign(classes=rows["classes"].map(PANOPTIC_MEANS), PQ=rows["PQ"].astype(float) * 100)
        cells = rows.groupby(CELL, sort=False)["PQ"]
        return cells.agg(folds="count", PQ="mean", PQ_std="std").reset_index()

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        networks, means = shown(study.networks, points["network"]), shown(PANOPTIC_MEANS.values(), points["classes"])
        return {self.name: charts.chart(study, points, networks, means)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw the panels; a mean that no run has, such as of stuff in a set without it, has none."""
        networks = shown(study.networks, points["network"])
        means = shown(PANOPTIC_MEANS.values(), points["classes"])
        size = (1.0 + 2.2 * len(means), 0.8 + height(2.0, points) * len(networks))
        return draw(lambda figure: _paint(figure, study, networks, means, points), size, folder, self.name)


def _paint(figure: Figure, study: Study, networks: list[str], means: list[str], points: pd.DataFrame) -> None:
    panels = figure.subplots(len(networks), len(means), sharex=True, sharey=True, squeeze=False)
    percents = sorted(study.split.percents)
    for network, row in zip(networks, panels, strict=True):
        for name, axes in zip(means, row, strict=True):
            axes.set_xscale("log")
            axes.set_xlim(percents[0] / 1.25, percents[-1] * 1.25)
            axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_title(f"{network}, {name}" if len(networks) > 1 else name)
            _panel(axes, study, points[(points["network"] == network) & (points["classes"] == name)])
        row[0].set_ylabel(f"PQ of the {study.report.model} (%)")
    for axes in panels[-1]:
        axes.set_xlabel("labelled images (%)")
    panels[0, 0].set_ylim(*ap_span(points["PQ"], points["PQ_std"]))
    folds = folds_of(points)
    legend(figure, method_handles(study, points), f"mean ± s.d. of {folds}" if folds else None)


def _panel(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    if points.empty:
        return empty(axes)
    present = [(method, mark) for method, mark in marks(study).items() if (points["method"] == method).any()]
    for index, (method, mark) in enumerate(present):
        line = points[points["method"] == method].sort_values("percent")
        deviation: Any = line["PQ_std"] if line["PQ_std"].notna().any() else None
        style: Any = {**mark.look(), "elinewidth": 0.8, "capsize": 2}
        axes.errorbar(beside(line["percent"], index, len(present)), line["PQ"], deviation, **style)
