"""Plot reliability diagrams of the pseudo-labels: class score and predicted mask IoU against the held-out labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pais_bench.errors import NothingToShow
from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import calibration as charts
from pais_bench.reports.figure import FigureReport, shown
from pais_bench.reports.pseudo_label_log import NOT_COMPARED, late_pseudo_labels
from pais_bench.reports.results import Results
from pais_bench.reports.style import GREY, draw, legend, marks, method_handles
from pais_bench.study.study import Study

PANELS = {
    "score": ("class score", "fraction matched", "score_bins"),
    "mask_iou": ("predicted mask IoU", "true mask IoU", "mask_iou_bins"),
}


class Report(FigureReport):
    """Draw a reliability diagram of each, with the expected calibration error beside it."""

    title = "Calibration of pseudo-labels"
    text_columns = ("network", "method", "of")
    number_columns = ("bin", "count", "predicted", "true")
    captions = {
        "calibration": "Reliability diagram of the pseudo-labels of the second half of the training, all percents and "
        "folds together: mean prediction against mean measurement in ten bins. A pseudo-label is matched if its class "
        "and mask (IoU 0.5) match a held-out object. ECE: mean distance from the diagonal, weighted by the bins' "
        "counts."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return count and means of each bin that is not empty."""
        log = late_pseudo_labels(study, results, "score_bins", "mask_iou_bins")
        frames = [
            _bins(group[column]).assign(network=str(network), method=str(method), of=name)
            for (network, method), group in log.groupby(["network", "method"], sort=False)
            for name, (_, _, column) in PANELS.items()
        ]
        points = pd.concat(frames, ignore_index=True)
        if points.empty:
            raise NothingToShow(NOT_COMPARED)
        return points

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        return {self.name: charts.chart(study, points, PANELS)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a row of two panels per network and a line per method."""
        networks = shown(study.networks, points["network"])
        size = (7.0, 0.6 + 2.6 * len(networks))
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.name)


def _bins(arrays: pd.Series) -> pd.DataFrame:
    """Add up bins f32[10,3] of many steps: counts, and means weighted by them; an empty bin has no row."""
    bins = np.nan_to_num(np.stack(list(arrays)).astype(float))
    count = bins[:, :, 0].sum(axis=0)
    filled = np.flatnonzero(count)
    means = (bins[:, :, :1] * bins[:, :, 1:]).sum(axis=0)[filled] / count[filled, None]
    return pd.DataFrame({"bin": filled, "count": count[filled], "predicted": means[:, 0], "true": means[:, 1]})


def error(points: pd.DataFrame) -> float:
    """Return the expected calibration error of the bins of one line.

    Source: Guo et al. (2017), On calibration of modern neural networks, ICML, equation 3.
    """
    return float((points["count"] * (points["predicted"] - points["true"]).abs()).sum() / points["count"].sum())


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    panels = figure.subplots(len(networks), 2, squeeze=False)
    for row, network in enumerate(networks):
        for axes, (name, (predicted, true, _)) in zip(panels[row], PANELS.items(), strict=True):
            _panel(axes, study, points[(points["network"] == network) & (points["of"] == name)])
            axes.set(xlabel=predicted, ylabel=true, title=network if len(networks) > 1 else "")
    legend(figure, method_handles(study, points))


def _panel(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)
    lines = [(mark, points[points["method"] == name]) for name, mark in marks(study).items()]
    lines = [(mark, line.sort_values("bin")) for mark, line in lines if not line.empty]
    for index, (mark, line) in enumerate(lines):
        axes.plot(line["predicted"], line["true"], **mark.look(), clip_on=False)
        # To the right of the panel, where it hides no line, and beside its marker, which says more than a colour.
        height = 0.96 - min(0.085, 0.92 / max(len(lines) - 1, 1)) * index
        axes.plot(1.07, height, **mark.look(), transform=axes.transAxes, clip_on=False)
        style: Any = {"transform": axes.transAxes, "color": mark.colour, "va": "center", "fontsize": 7.5}
        axes.text(1.11, height, f"ECE {error(line):.3f}", **style)
