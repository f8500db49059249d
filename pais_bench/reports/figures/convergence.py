"""Plot mask AP over the training of each method at each percent of labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import convergence as charts
from pais_bench.reports.external_rows import no_log_note, rows_without_log
from pais_bench.reports.figure import FigureReport
from pais_bench.reports.results import Results
from pais_bench.reports.style import (
    FEW_METHODS,
    GREY,
    Mark,
    add_note,
    draw,
    empty,
    folds_of,
    height,
    in_unit,
    legend,
    marks,
    method_handles,
    shrunken,
)
from pais_bench.study.study import Study

BAND = 0.18
STUDENT: Any = {"linewidth": 0.7, "linestyle": (0, (4, 2))}
GROUP = ["network", "method", "percent", "model"]
AGAINST = {"convergence": "step", "convergence_images": "images_seen", "convergence_time": "seconds"}
CAPTION = "Mask AP of the evaluations during training, mean over the folds, up to the last step that all have reached"


class Report(FigureReport):
    """Draw AP against steps, against images seen, and against the time of training."""

    title = "Convergence"
    text_columns = ("network", "method", "model")
    number_columns = ("percent", "step", "images_seen", "seconds", "AP", "AP_min", "AP_max", "folds")
    captions = {
        "convergence": f"{CAPTION}, against training steps.",
        "convergence_images": f"{CAPTION}, against labelled and unlabelled images, each unlabelled image counted once.",
        "convergence_time": f"{CAPTION}, against the time of training without evaluations, mean over folds.",
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mean, minimum and maximum AP in percent 0..100 over the folds, by GROUP and step.

        A step that only some of the started folds have reached is omitted, as a mean over changing folds jumps. A
        method of another codebase has a row without numbers, as it has no log.
        """
        percent = results.curves.assign(AP=results.curves["AP"].astype(float) * 100).dropna(subset=["AP"])
        points = (
            percent.groupby([*GROUP, "step"], sort=False)
            .agg(
                images_seen=("images_seen", "mean"),
                seconds=("seconds", "mean"),
                AP=("AP", "mean"),
                AP_min=("AP", "min"),
                AP_max=("AP", "max"),
                folds=("AP", "count"),
            )
            .reset_index()
        )
        started = points.groupby(GROUP, sort=False)["folds"].transform("max")
        common, others = points[points["folds"] == started], rows_without_log(results, GROUP[:3]).assign(model="")
        return pd.concat([common, others], ignore_index=True) if len(others) else common

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        return {stem: charts.chart(study, results.curves, points, against) for stem, against in AGAINST.items()}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a row of panels per network and a panel per percent."""
        size = (max(3.5, 1.75 * len(study.split.percents)), 0.8 + height(1.7, points) * len(study.networks))
        paint = partial(_paint, study=study, points=points)
        return [
            path
            for stem, against in AGAINST.items()
            for path in draw(partial(paint, against=against), size, folder, stem)
        ]


def _paint(figure: Figure, study: Study, points: pd.DataFrame, against: str) -> None:
    percents, networks = study.split.percents, list(study.networks)
    add_note(figure, no_log_note(points))
    points = points[points["folds"] > 0]
    sizes = {
        "width_ratios": shrunken(percents, points["percent"]),
        "height_ratios": shrunken(networks, points["network"]),
    }
    grid: Any = {"sharex": True, "sharey": True, "squeeze": False, "gridspec_kw": sizes}
    panels = figure.subplots(len(networks), len(percents), **grid)
    label = {"step": "training steps", "images_seen": "images seen"}.get(against, "")
    if against == "seconds":
        times, unit = in_unit(points["seconds"])
        points, label = points.assign(seconds=times), f"training time ({unit})"
    students = _has_students(study, points)
    for row, network in enumerate(networks):
        for column, percent in enumerate(percents):
            axes = panels[row, column]
            cell = points[(points["network"] == network) & (points["percent"] == percent)]
            _panel(axes, study, cell, against, students)
            if row == 0:
                axes.set_title(f"{percent:g} % labels")
            if row == len(networks) - 1:
                axes.set_xlabel(label)
        name = f"{network}\n" if len(networks) > 1 else ""
        panels[row, 0].set_ylabel(f"{name}mask AP (%)")
    if not points.empty:
        panels[0, 0].set_ylim(bottom=0)
        panels[0, 0].set_xlim(left=0)
    legend(figure, legend_entries(study, points))


def _panel(axes: Axes, study: Study, points: pd.DataFrame, against: str, students: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=against != "seconds"))
    if against != "seconds":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if points.empty:
        return empty(axes)
    for method, mark in marks(study).items():
        evaluations = points[points["method"] == method].sort_values("step")
        _line(axes, evaluations[evaluations["model"] == study.report.model], mark, against)
        if students:
            student = evaluations[evaluations["model"] == "student"]
            axes.plot(student[against], student["AP"], color=mark.colour, **STUDENT, zorder=1.5)


def _line(axes: Axes, points: pd.DataFrame, mark: Mark, against: str) -> None:
    every = max(1, len(points) // 8)
    axes.plot(points[against], points["AP"], **mark.look(), markevery=every)
    if (points["folds"] > 1).any():
        low, high = points["AP_min"], points["AP_max"]
        axes.fill_between(points[against], low, high, color=mark.colour, alpha=BAND, linewidth=0)


def _has_students(study: Study, points: pd.DataFrame) -> bool:
    """Return whether the students are drawn beside their teachers: not where they would hide each other."""
    return study.report.model == "teacher" and points["method"].nunique() <= FEW_METHODS


def legend_entries(study: Study, points: pd.DataFrame) -> list[Line2D | Patch]:
    """Return the legend of what was drawn."""
    entries = method_handles(study, points)
    if _has_students(study, points):
        entries.append(Line2D([], [], color="black", label="teacher"))
        entries.append(Line2D([], [], color="black", label="student", **STUDENT))
    if folds := folds_of(points):
        entries.append(Patch(color=GREY, alpha=BAND, linewidth=0, label=f"range of {folds}"))
    return entries
