"""Chart mask AP over the training: every fold, and the mean over the folds."""

from __future__ import annotations

import pandas as pd

from pais_bench.reports.chart import Chart, Key, Panel, Trace, axis, joined, legend, line
from pais_bench.reports.external_rows import no_log_note
from pais_bench.reports.style import in_unit
from pais_bench.study.study import Study

CELL = ["network", "method", "percent"]


def chart(study: Study, curves: pd.DataFrame, points: pd.DataFrame, against: str) -> Chart:
    """Return a row per network and a panel per percent.

    curves is that of Results, AP 0..1 | points: the means in percent 0..100, as the figure plots them | against: the
    column of both on the horizontal axis.
    """
    label = {"step": "training steps", "images_seen": "images seen"}.get(against, "")
    lines = f"Solid: {study.report.model}"
    lines += ", thin: its folds" * (len(study.split.folds) > 1) + ", dashed: student" * (
        study.report.model == "teacher"
    )
    note, points = f"{lines}. {no_log_note(points)}".strip(), points[points["folds"] > 0]
    # Of the columns that are drawn alone, as every line of the page is a selection.
    curves = curves[curves["model"] == study.report.model][[*CELL, "fold", "AP", *dict.fromkeys(["step", against])]]
    curves = curves.dropna(subset=["AP"])
    curves = curves.assign(AP=100 * curves["AP"].astype(float))
    if against == "seconds":
        _, unit = in_unit(pd.concat([points["seconds"], curves["seconds"]]))
        size = {"h": 3600, "min": 60, "s": 1}[unit]
        label = f"training time ({unit})"
        points = points.assign(seconds=points["seconds"] / size)
        curves = curves.assign(seconds=curves["seconds"].astype(float) / size)
    highest = max(points["AP_max"].max(), curves["AP"].max(), 1.0) if len(points) else 1.0
    longest = max(points[against].max(), curves[against].max(), 1e-6) if len(points) else 1.0
    layout = {"xaxis": axis(label, 0, 1.03 * longest), "yaxis": axis("mask AP (%)", 0, 1.08 * highest)}
    keys = legend(study, points["method"])
    rows = []
    for network in study.networks:
        panels = []
        for percent in study.split.percents:
            cell, folds = (
                frame[(frame["network"] == network) & (frame["percent"] == percent)] for frame in (points, curves)
            )
            traces = [trace for key in keys for trace in _method(study, key, cell, folds, against)]
            panels.append(Panel(f"{percent:g} % labels", traces, layout))
        rows.append((network if len(study.networks) > 1 else "", panels))
    return Chart(rows, keys, note)


def _method(study: Study, key: Key, points: pd.DataFrame, curves: pd.DataFrame, against: str) -> list[Trace]:
    """Return the folds as thin lines, the student's mean dashed, and the mean of the model that the tables print."""
    x = {"step": "step", "images_seen": "images seen", "seconds": "time"}[against]
    own, folds = points[points["method"] == key.name].sort_values("step"), curves[curves["method"] == key.name]
    if own.empty:
        return []
    value = f"{x} %{{x:,.{0 if against != 'seconds' else 2}f}}<br>mask AP %{{y:.1f}}"
    thin = {"mode": "lines", "opacity": 0.5, "line": {"color": key.colour, "width": 1}}
    traces = []
    if folds["fold"].nunique() > 1:
        apart = joined(fold.sort_values("step") for _, fold in folds.groupby("fold"))
        traces.append(line(key, apart[against], apart["AP"], f"fold %{{customdata}}<br>{value}", apart["fold"], **thin))
    for model in ("student", study.report.model) if study.report.model == "teacher" else ("student",):
        mean = joined([own[own["model"] == model]]).iloc[:-1]
        dashed = {"mode": "lines", "line": {"color": key.colour, "width": 1.2, "dash": "dash"}}
        hover = f"{model}, mean of %{{customdata}} folds<br>{value}"
        if folds["fold"].nunique() == 1:
            hover = f"{model}, fold {folds['fold'].iloc[0]:g}<br>{value}"
        if len(mean):
            style = dashed if model != study.report.model else {}
            traces.append(line(key, mean[against], mean["AP"], hover, mean["folds"], **style))
    return traces
