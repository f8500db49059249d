"""Plot class score and predicted mask IoU of pseudo-labels against their mask IoU with the held-out labels."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import score_iou as charts
from pais_bench.reports.figure import FigureReport, shown
from pais_bench.reports.pseudo_label_log import late_pseudo_labels
from pais_bench.reports.results import Results
from pais_bench.reports.style import GREY, draw
from pais_bench.study.study import Study

ROWS = {"score": ("class score", "class_weight"), "mask_iou": ("predicted mask IoU", "mask_weight")}
COLOURS = "viridis_r"
MAX_COLUMNS = 5
"""Panels side by side; more would be too small to read on the page of a paper."""
MAX_POINTS = 600
"""Pseudo-labels of a panel; more would hide each other."""


class Report(FigureReport):
    """Draw the mismatch that motivates PAIS: class score, and predicted mask IoU, against true mask IoU."""

    title = "Class score and mask IoU of pseudo-labels"
    text_columns = ("network", "method")
    number_columns = ("percent", "fold", "step", "score", "mask_iou", "class_weight", "mask_weight", "iou")
    optional_columns = ("mask_iou", "class_weight", "mask_weight", "iou")
    captions = {
        "score_iou": "Pseudo-labels of the second half of the training: mask IoU with the held-out object against "
        "class score, coloured by class weight, and against predicted mask IoU, coloured by mask weight; a sample of "
        "all percents and folds. ρ: Spearman's rank correlation over the points of the panel."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return at most MAX_POINTS pseudo-labels of each network and method, evenly spread over its logs."""
        log = late_pseudo_labels(study, results, "sample")
        frames = [
            _sample(group).assign(network=str(network), method=str(method))
            for (network, method), group in log.groupby(["network", "method"], sort=False)
        ]
        return pd.concat(frames, ignore_index=True)

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        networks, methods = shown(study.networks, points["network"]), shown(study.methods, points["method"])
        return {self.name: charts.chart(networks, methods, points, ROWS)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a column of panels per method, and two rows per network and MAX_COLUMNS methods."""
        networks, methods = shown(study.networks, points["network"]), shown(study.methods, points["method"])
        blocks = math.ceil(len(methods) / MAX_COLUMNS)
        width = math.ceil(len(methods) / blocks)
        groups = [methods[start : start + width] for start in range(0, len(methods), width)]
        size = (1.1 + 1.75 * width, 0.5 + (3.5 + 0.2 * (len(groups) > 1)) * len(networks) * len(groups))
        return draw(lambda figure: _paint(figure, networks, groups, points), size, folder, self.name)


def _sample(log: pd.DataFrame) -> pd.DataFrame:
    """Return at most MAX_POINTS rows of the logged samples, with the run and step of each."""
    values = np.concatenate(list(log["sample"]))
    keys = log.loc[log.index.repeat(log["sample"].map(len)), ["percent", "fold", "step"]]
    rows = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int))
    frame = pd.DataFrame(values[rows], columns=list(Report.number_columns[3:]))
    return pd.concat([keys.iloc[rows].reset_index(drop=True), frame], axis=1)


def _paint(figure: Figure, networks: list[str], groups: list[list[str]], points: pd.DataFrame) -> None:
    rows = list(itertools.product(networks, groups, ROWS.items()))
    panels = figure.subplots(len(rows), len(groups[0]), squeeze=False)
    largest = float(points[["class_weight", "mask_weight"]].max().max())
    norm = Normalize(0, max(1.0, largest))
    for row, (network, methods, (name, (label, weight))) in enumerate(rows):
        for axes in panels[row, len(methods) :]:
            axes.set_axis_off()
        for column, method in enumerate(methods):
            axes = panels[row, column]
            cell = points[(points["network"] == network) & (points["method"] == method)]
            _panel(axes, cell[name], cell["iou"], cell[weight], norm)
            axes.set_xlabel(label)
            axes.tick_params(labelleft=column == 0)
            if row % (2 if len(groups) > 1 else len(rows)) == 0:
                axes.set_title(method)
        prefix = f"{network}\n" if len(networks) > 1 else ""
        panels[row, 0].set_ylabel(f"{prefix}true mask IoU")
        bar = figure.colorbar(panels[row, 0].collections[0], ax=list(panels[row]), aspect=18, pad=0.02)
        bar.set_label(weight.replace("_", " "))
        bar.outline.set_linewidth(0.4)


def _panel(axes: Axes, predicted: pd.Series, true: pd.Series, weight: pd.Series, norm: Normalize) -> None:
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)
    axes.scatter(predicted, true, c=weight, cmap=COLOURS, norm=norm, s=6, linewidths=0, alpha=0.8)
    if len(true) > 2:
        rho = predicted.rank().corr(true.rank())
        text = "ρ undefined" if np.isnan(rho) else f"ρ = {rho:.2f}".replace("-", "−")
        background = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1}
        axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=7.5, bbox=background)
