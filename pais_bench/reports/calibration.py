"""Can a score of 0.8 be believed? Class score and predicted mask IoU of the pseudo-labels against the hidden truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pais_bench.config import Study
from pais_bench.reports._figure import FigureReport
from pais_bench.reports._looks import late
from pais_bench.reports._style import GREY, draw, legend, marks
from pais_bench.results import Results

PANELS = {
    "score": ("class score", "share that is right", "score_bins"),
    "quality": ("predicted mask IoU", "true mask IoU", "quality_bins"),
}


class Report(FigureReport):
    """Draw a reliability diagram of each, and write the expected calibration error beside it."""

    stem = "calibration"
    texts = ("network", "method", "of")
    numbers = ("bin", "count", "predicted", "true")
    figures = {
        "calibration": "Ten bins of the pseudo-labels of the second half of the training, all percents and folds "
        "together: mean of what was predicted against what was true. A pseudo-label is right whose class and mask "
        "(IoU 0.5) match a hidden object. ECE: mean distance from the diagonal, weighted by the bins' counts."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give count and means of each bin that is not empty."""
        looks = late(study, results, "score_bins", "quality_bins")
        frames = [
            _bins(here[column]).assign(network=str(network), method=str(method), of=name)
            for (network, method), here in looks.groupby(["network", "method"], sort=False)
            for name, (_, _, column) in PANELS.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a row of two panels per network and a line per method."""
        networks = [name for name in study.networks if (points["network"] == name).any()]
        size = (6.0, 0.6 + 2.6 * max(1, len(networks)))
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.stem)


def _bins(arrays: pd.Series) -> pd.DataFrame:
    """Add up bins f32[10,3] of many steps: counts, and means weighted by them; an empty bin has no row."""
    bins = np.nan_to_num(np.stack(list(arrays)).astype(float))
    count = bins[:, :, 0].sum(axis=0)
    filled = np.flatnonzero(count)
    means = (bins[:, :, :1] * bins[:, :, 1:]).sum(axis=0)[filled] / count[filled, None]
    return pd.DataFrame({"bin": filled, "count": count[filled], "predicted": means[:, 0], "true": means[:, 1]})


def error(points: pd.DataFrame) -> float:
    """Give the expected calibration error of the bins of one line.

    Source: Guo et al. (2017), On calibration of modern neural networks, ICML, equation 3.
    """
    return float((points["count"] * (points["predicted"] - points["true"]).abs()).sum() / points["count"].sum())


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    panels = figure.subplots(len(networks), 2, squeeze=False)
    for row, network in enumerate(networks):
        for axes, (name, (predicted, true, _)) in zip(panels[row], PANELS.items(), strict=True):
            here = points[(points["network"] == network) & (points["of"] == name)]
            _panel(axes, study, here)
            axes.set(xlabel=predicted, ylabel=true, title=network if len(networks) > 1 else "")
    drawn = [mark.handle(name) for name, mark in marks(study).items() if (points["method"] == name).any()]
    legend(figure, [*drawn])


def _panel(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)
    lines = [(mark, points[points["method"] == name]) for name, mark in marks(study).items()]
    lines = [(mark, drawn.sort_values("bin")) for mark, drawn in lines if not drawn.empty]
    for place, (mark, drawn) in enumerate(lines):
        axes.plot(drawn["predicted"], drawn["true"], color=mark.colour, marker=mark.marker, clip_on=False)
        told = f"ECE {error(drawn):.3f}"
        axes.text(0.03, 0.97 - 0.075 * place, told, transform=axes.transAxes, va="top", color=mark.colour, fontsize=7.5)
