"""Chart mask AP against the time of training."""

from __future__ import annotations

import pandas as pd

from pais_bench.reports.chart import Chart, Panel, axis, legend, line, rounded
from pais_bench.reports.external_rows import no_log_note
from pais_bench.reports.style import ap_span, in_unit
from pais_bench.reports.teachers import teacher_note
from pais_bench.study.study import Study

FILLS = ("", "-open", "-dot", "-open-dot")
"""Variants of a symbol, one per network."""


def chart(study: Study, points: pd.DataFrame) -> Chart:
    """Return a panel per percent and a point per method and network; points are those of the figure."""
    note, points = f"{teacher_note(study)} {no_log_note(points)}".strip(), points[points["folds"] > 0]
    times, unit = in_unit(points["seconds"])
    points = points.assign(time=times)
    longest = 1.0 if points.empty else 1.15 * points["time"].max()
    ap = axis("mask AP (%)", *ap_span(points["AP"], points["AP_std"]))
    layout = {"xaxis": axis(f"training time ({unit})", 0, longest), "yaxis": ap}
    keys = legend(study, points["method"])
    several, panels = len(study.networks) > 1, []
    for percent in study.split.percents:
        traces = []
        for key in keys:
            own = points[(points["percent"] == percent) & (points["method"] == key.name)]
            for network, cell in own.groupby("network", sort=False):
                fill = FILLS[list(study.networks).index(str(network)) % len(FILLS)]
                hover = f"{network}<br>" * several
                hover += f"%{{x:.2f}} {unit} on {cell['device'].iloc[0]}<br>mask AP %{{y:.1f}}"
                hover += "<br>mean of %{customdata} folds"
                deviations = {"type": "data", "array": rounded(cell["AP_std"]), "thickness": 1.2, "width": 3}
                marker = {"color": key.colour, "symbol": key.symbol + fill, "size": 9}
                style = {"mode": "markers", "marker": marker, "error_y": {**deviations, "color": key.colour}}
                traces.append(line(key, cell["time"], cell["AP"], hover, cell["folds"], **style))
        panels.append(Panel(f"{percent:g} % labels", traces, layout))
    if several:
        names = {"": "filled", "-open": "hollow", "-dot": "filled with a dot", "-open-dot": "hollow with a dot"}
        fills = [f"{network} {names[FILLS[index % len(FILLS)]]}" for index, network in enumerate(study.networks)]
        note = f"{note} Networks: {', '.join(fills)}.".strip()
    return Chart([("", panels)], keys, note)
