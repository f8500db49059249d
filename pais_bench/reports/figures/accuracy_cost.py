"""Plot mask AP against the time of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import accuracy_cost as charts
from pais_bench.reports.external_rows import no_log_note, rows_without_log
from pais_bench.reports.figure import FigureReport
from pais_bench.reports.results import Results
from pais_bench.reports.style import (
    add_note,
    ap_span,
    draw,
    empty,
    height,
    in_unit,
    legend,
    marks,
    method_handles,
    shrunken,
)
from pais_bench.reports.teachers import teacher_note
from pais_bench.study.study import Study

FILLS: tuple[Any, ...] = ("full", "none", "left", "bottom")
CELL = ["network", "method", "percent"]


class Report(FigureReport):
    """Draw a panel per percent and a point per method and network."""

    title = "Mask AP against training time"
    text_columns = ("network", "method", "device")
    number_columns = ("percent", "folds", "seconds", "AP", "AP_std")
    optional_columns = ("AP_std",)
    captions = {
        "accuracy_cost": "Mask AP against the time of one training on all its devices, without evaluations; means over "
        "the folds, error bars: sample standard deviation of AP. Times are comparable only on the same device."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return a row per network, method and percent with a finished run of known time; AP in percent 0..100.

        A method of another codebase has a row without numbers, as it has no log.
        """
        done = results.runs[(results.runs["state"] == "done") & results.runs["wall_seconds"].notna()]
        done = done.assign(AP=done["segm_AP"].astype(float) * 100, seconds=done["wall_seconds"].astype(float))
        done = done.dropna(subset=["AP"])  # undefined without an object to find
        points = (
            done.groupby(CELL, sort=False)
            .agg(
                device=("device", lambda names: " + ".join(sorted(set(names.dropna().astype(str))))),
                folds=("AP", "count"),
                seconds=("seconds", "mean"),
                AP=("AP", "mean"),
                AP_std=("AP", "std"),
            )
            .reset_index()
        )
        others = rows_without_log(results, CELL).assign(device="")
        return pd.concat([points, others], ignore_index=True) if len(others) else points

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        return {self.name: charts.chart(study, points)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw one row of panels."""
        size = (max(3.5, 1.75 * len(study.split.percents)), height(2.6, points))
        return draw(lambda figure: _paint(figure, study, points), size, folder, self.name)


def _paint(figure: Figure, study: Study, points: pd.DataFrame) -> None:
    percents = study.split.percents
    add_note(figure, f"{teacher_note(study)} {no_log_note(points)}".strip())
    points = points[points["folds"] > 0]
    times, unit = in_unit(points["seconds"])
    points = points.assign(time=times)
    sizes = {"width_ratios": shrunken(percents, points["percent"])}
    panels = figure.subplots(1, len(percents), sharex=True, sharey=True, squeeze=False, gridspec_kw=sizes)[0]
    for axes, percent in zip(panels, percents, strict=True):
        _panel(axes, study, points[points["percent"] == percent])
        axes.set(title=f"{percent:g} % labels", xlabel=f"training time ({unit})")
    panels[0].set_ylabel("mask AP (%)")
    if not points.empty:
        panels[0].set_xlim(left=0, right=1.1 * points["time"].max() or 1)
        panels[0].set_ylim(*ap_span(points["AP"], points["AP_std"]))
    entries = method_handles(study, points)
    for entry in entries:
        entry.set_linestyle("")
    if len(study.networks) > 1:
        style: Any = {"color": "black", "marker": "o", "linestyle": "", "markeredgecolor": "black"}
        entries += [Line2D([], [], fillstyle=_fill(study, name), label=name, **style) for name in study.networks]
    legend(figure, entries)


def _panel(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    if points.empty:
        return empty(axes)
    axes.grid(True, axis="x")
    for method, mark in marks(study).items():
        for network, line in points[points["method"] == method].groupby("network", sort=False):
            style: Any = {**mark.look(5.0), "markeredgecolor": mark.colour}
            deviation = line["AP_std"] if line["AP_std"].notna().any() else None
            fill = _fill(study, str(network))
            axes.errorbar(line["time"], line["AP"], deviation, linestyle="", fillstyle=fill, elinewidth=0.8, **style)


def _fill(study: Study, network: str) -> Any:
    return FILLS[list(study.networks).index(network) % len(FILLS)]
