"""Chart class score and predicted mask IoU of pseudo-labels against their mask IoU with the held-out labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from pais_bench.reports.chart import Chart, Panel, Trace, axis, rounded
from pais_bench.reports.charts.calibration import DIAGONAL


def chart(
    networks: Sequence[str], methods: Sequence[str], points: pd.DataFrame, measures: Mapping[str, tuple[str, str]]
) -> Chart:
    """Return a row per network and measure and a panel per method; measures: the label of each and its weight."""
    highest = max(1.0, float(points[["class_weight", "mask_weight"]].max().max()))
    rows = []
    for network in networks:
        for name, (label, weight) in measures.items():
            layout = {"xaxis": axis(label, -0.02, 1.02), "yaxis": axis("true mask IoU", -0.02, 1.02)}
            panels = []
            for method in methods:
                cell = points[(points["network"] == network) & (points["method"] == method)]
                traces = [DIAGONAL, _points(cell, name, label, weight, highest)] if len(cell) else []
                panels.append(Panel(method, traces, layout))
            rows.append((f"{network}: {label}" if len(networks) > 1 else label, panels))
    return Chart(rows)


def _points(cell: pd.DataFrame, name: str, label: str, weight: str, highest: float) -> Trace:
    words = weight.replace("_", " ")
    keys = zip(rounded(cell["percent"]), rounded(cell["fold"]), rounded(cell["step"]), strict=True)
    return {
        **{"type": "scatter", "mode": "markers", "x": rounded(cell[name]), "y": rounded(cell["iou"])},
        "customdata": [list(key) for key in keys],
        "hovertemplate": f"{label} %{{x:.2f}}<br>true mask IoU %{{y:.2f}}<br>{words} %{{marker.color:.2f}}<br>"
        "%{customdata[0]} % labels, fold %{customdata[1]}, step %{customdata[2]:,.0f}<extra></extra>",
        "marker": {
            **{"size": 5, "opacity": 0.8, "colorscale": "Viridis", "cmin": 0, "cmax": round(highest, 4)},
            "color": rounded(cell[weight]),
            "colorbar": {"title": {"text": words, "side": "right"}, "thickness": 8, "outlinewidth": 0},
            "showscale": True,
        },
    }
