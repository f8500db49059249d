"""Chart panoptic quality against the percent of labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pais_bench.reports.chart import Chart, Panel, axis, legend, means_line, percent_axis
from pais_bench.reports.style import ap_span, beside
from pais_bench.study.study import Study


def chart(study: Study, points: pd.DataFrame, networks: Sequence[str], means: Sequence[str]) -> Chart:
    """Return a row per network and a panel per mean over classes; points are those of the figure, in percent."""
    keys = legend(study, points["method"])
    layout = {
        "xaxis": percent_axis(sorted(study.split.percents)),
        "yaxis": axis(f"PQ of the {study.report.model} (%)", *ap_span(points["PQ"], points["PQ_std"])),
    }
    rows = []
    for network in networks:
        panels = []
        for name in means:
            cell, traces = points[(points["network"] == network) & (points["classes"] == name)], []
            for index, key in enumerate(keys):
                own = cell[cell["method"] == key.name].sort_values("percent")
                own = own.assign(place=beside(own["percent"], index, len(keys)))
                traces += [means_line(key, own, "PQ", "PQ")] if len(own) else []
            panels.append(Panel(name, traces, layout))
        rows.append((network if len(networks) > 1 else "", panels))
    return Chart(rows, keys)
