"""Chart the reliability of the pseudo-labels' class scores and predicted mask IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pais_bench.reports.chart import Chart, Panel, Trace, axis, legend, line
from pais_bench.study.study import Study

DIAGONAL: Trace = {
    **{"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"},
    "line": {"color": "#888888", "width": 1, "dash": "dot"},
}


def chart(study: Study, points: pd.DataFrame, panels: Mapping[str, tuple[str, str, str]]) -> Chart:
    """Return a row per network; panels: of each value of the column `of` the labels of both axes."""
    keys = legend(study, points["method"])
    rows = []
    for network in dict.fromkeys(points["network"]):
        row = []
        for name, (predicted, true, _) in panels.items():
            layout: dict[str, Any] = {"xaxis": axis(predicted, 0, 1.02), "yaxis": axis(true, 0, 1.02)}
            traces = []
            for key in keys:
                own = points[(points["network"] == network) & (points["of"] == name) & (points["method"] == key.name)]
                hover = f"{predicted} %{{x:.2f}}<br>{true} %{{y:.2f}}<br>%{{customdata:,}} pseudo-labels"
                if len(own):
                    traces.append(line(key, own["predicted"], own["true"], hover, own["count"]))
            row.append(Panel("", [DIAGONAL, *traces] if traces else [], layout))
        rows.append((network if len(study.networks) > 1 else "", row))
    return Chart(rows, keys)
