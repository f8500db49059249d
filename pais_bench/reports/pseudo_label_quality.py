"""Do the pseudo-labels get better while a run trains? Precision, recall and mask IoU against the hidden truth."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from pais_bench.config import Study
from pais_bench.reports._figure import FigureReport
from pais_bench.reports._style import draw, empty, legend, marks
from pais_bench.results import LOOK_MEANS, Results
from pais_bench.types import LeftOut

ROWS = {
    "precision": "precision",
    "recall": "recall",
    "right_iou": "IoU of the right",
    "kept_per_image": "kept per image",
}
SPANS = 12
"""The steps are cut into so many spans, whose means are drawn: one logged step is a few images."""


class Report(FigureReport):
    """Draw a row of panels per measure and a panel per percent; a line per method."""

    stem = "pseudo_label_quality"
    texts = ("network", "method")
    numbers = ("percent", "step", *LOOK_MEANS, "looks")
    figures = {
        "pseudo_label_quality": f"Pseudo-labels over the training, means of {SPANS} spans of steps and of all folds. "
        "Right is a pseudo-label whose class and mask (IoU 0.5) match a hidden object; precision is their share of the "
        "kept, recall of the objects."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give the means over the looks of each span, at their mean step."""
        if results.looks.empty:
            raise LeftOut(f"No run of study '{study.name}' has logged pseudo-labels yet.")
        looks = results.looks.astype(dict.fromkeys((*LOOK_MEANS, "step"), float))
        longest = max(float(looks["step"].max()), 1.0)
        looks = looks.assign(span=-(looks["step"] * SPANS // -longest), looks=1)
        cells = looks.groupby(["network", "method", "percent", "span"], sort=False)
        return cells.agg({"step": "mean", **dict.fromkeys(LOOK_MEANS, "mean"), "looks": "sum"}).reset_index()

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw the rows network by network."""
        networks = [name for name in study.networks if (points["network"] == name).any()]
        size = (max(3.5, 1.75 * len(study.split.percents)), 0.8 + 1.25 * len(ROWS) * max(1, len(networks)))
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.stem)


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    rows = [(network, *row) for network in networks for row in ROWS.items()]
    percents = study.split.percents
    # Limits that all panels shared would be asked of all of them at every look at one.
    panels = figure.subplots(len(rows), len(percents), sharex="col", sharey="row", squeeze=False)
    low, high = points["step"].min(), points["step"].max()
    margin = 0.05 * (high - low) or 1
    drawn = {name: mark for name, mark in marks(study).items() if (points["method"] == name).any()}
    for row, (network, measure, label) in enumerate(rows):
        for axes, percent in zip(panels[row], percents, strict=True):
            here = points[(points["network"] == network) & (points["percent"] == percent)]
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            if here.empty:
                empty(axes)
            for method, mark in drawn.items():
                line = here[here["method"] == method].sort_values("step").dropna(subset=[measure])
                axes.plot(line["step"], line[measure], color=mark.colour, marker=mark.marker)
            axes.set_xlim(low - margin, high + margin)
            axes.set_xlabel("training steps" if row == len(rows) - 1 else "")
            axes.set_title(f"{percent:g} % labels" if row == 0 else "")
        panels[row, 0].set_ylabel(f"{network}\n{label}" if len(networks) > 1 else label)
        panels[row, 0].set_ylim((0, None) if measure == "kept_per_image" else (0, 1.03))
    legend(figure, [mark.handle(name) for name, mark in drawn.items()])
