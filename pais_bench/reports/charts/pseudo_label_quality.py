"""Chart precision, recall and mask IoU of the pseudo-labels over the training."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pais_bench.reports.chart import Chart, Panel, axis, legend, line
from pais_bench.study.study import Study


def chart(study: Study, points: pd.DataFrame, measures: Mapping[str, str]) -> Chart:
    """Return a row per network and measure, a panel per percent; measures: the label of each column of points."""
    keys = legend(study, points["method"])
    last = max(float(points["step"].max()), 1.0)
    rows = []
    for network in dict.fromkeys(points["network"]):
        for measure, label in measures.items():
            high = max(1.0, points[measure].max()) if measure == "kept_per_image" else 1.0
            layout = {"xaxis": axis("training steps", 0, 1.03 * last), "yaxis": axis(label, 0, 1.05 * high)}
            panels = []
            for percent in study.split.percents:
                cell = points[(points["network"] == network) & (points["percent"] == percent)]
                traces = []
                for key in keys:
                    own = cell[cell["method"] == key.name].sort_values("step").dropna(subset=[measure])
                    hover = f"step %{{x:,.0f}}<br>{label} %{{y:.2f}}<br>mean of %{{customdata}} logged steps"
                    if len(own):
                        traces.append(line(key, own["step"], own[measure], hover, own["logged_steps"]))
                panels.append(Panel(f"{percent:g} % labels", traces, layout))
            rows.append((f"{network}: {label}" if len(study.networks) > 1 else label, panels))
    return Chart(rows, keys)
