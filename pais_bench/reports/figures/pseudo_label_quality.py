"""Plot precision, recall and mask IoU of the pseudo-labels over the training, against the held-out labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import pseudo_label_quality as charts
from pais_bench.reports.figure import FigureReport, shown
from pais_bench.reports.pseudo_label_log import require_log
from pais_bench.reports.results import PSEUDO_LABEL_MEANS, Results
from pais_bench.reports.style import draw, empty, legend, marks, shrunken
from pais_bench.study.study import Study

ROWS = {
    "precision": "precision",
    "recall": "recall",
    "matched_iou": "matched IoU",
    "kept_per_image": "kept per image",
}
SPANS = 12
"""Number of spans of steps whose means are plotted: one logged step has a few images only."""


class Report(FigureReport):
    """Draw a row of panels per measure and a panel per percent; a line per method."""

    title = "Pseudo-label quality during training"
    text_columns = ("network", "method")
    number_columns = ("percent", "step", *PSEUDO_LABEL_MEANS, "logged_steps")
    optional_columns = PSEUDO_LABEL_MEANS
    captions = {
        "pseudo_label_quality": f"Pseudo-labels over the training, means of {SPANS} spans of steps and of all folds. "
        "A pseudo-label is matched if its class and mask (IoU 0.5) match a held-out object. Precision: the fraction of "
        "kept pseudo-labels that are matched; recall: the fraction of objects that are matched."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the means over the logged steps of each span, at their mean step."""
        log = require_log(study, results).astype(dict.fromkeys((*PSEUDO_LABEL_MEANS, "step"), float))
        longest = max(float(log["step"].max()), 1.0)
        log = log.assign(span=-(log["step"] * SPANS // -longest), logged_steps=1)
        spans = log.groupby(["network", "method", "percent", "span"], sort=False)
        means = {"step": "mean", **dict.fromkeys(PSEUDO_LABEL_MEANS, "mean")}
        return spans.agg({**means, "logged_steps": "sum"}).reset_index()

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        return {self.name: charts.chart(study, points, ROWS)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw the rows network by network."""
        networks = shown(study.networks, points["network"])
        size = (max(3.5, 1.75 * len(study.split.percents)), 0.8 + 1.25 * len(ROWS) * len(networks))
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.name)


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    rows = [(network, *row) for network in networks for row in ROWS.items()]
    percents = study.split.percents
    # Limits shared by all panels would be computed over all of them at every access to one.
    sizes = {"width_ratios": shrunken(percents, points["percent"])}
    panels = figure.subplots(len(rows), len(percents), sharex="col", sharey="row", squeeze=False, gridspec_kw=sizes)
    low, high = points["step"].min(), points["step"].max()
    margin = 0.05 * (high - low) or 1
    own_marks = {name: mark for name, mark in marks(study).items() if (points["method"] == name).any()}
    for row, (network, measure, label) in enumerate(rows):
        for axes, percent in zip(panels[row], percents, strict=True):
            cell = points[(points["network"] == network) & (points["percent"] == percent)]
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            if cell[measure].isna().all():
                empty(axes)
            for method, mark in own_marks.items():
                line = cell[cell["method"] == method].sort_values("step").dropna(subset=[measure])
                axes.plot(line["step"], line[measure], **mark.look())
            axes.set_xlim(low - margin, high + margin)
            axes.set_xlabel("training steps" if row == len(rows) - 1 else "")
            axes.set_title(f"{percent:g} % labels" if row == 0 else "")
        panels[row, 0].set_ylabel(f"{network}\n{label}" if len(networks) > 1 else label)
        panels[row, 0].set_ylim((0, None) if measure == "kept_per_image" else (0, 1.03))
    legend(figure, [mark.handle(name) for name, mark in own_marks.items()])
