"""Chart mask AP against the percent of labelled images: every fold, the means, other codebases and papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from pais_bench.reports.chart import (
    Chart,
    Key,
    Panel,
    Trace,
    axis,
    key,
    legend,
    line,
    means_line,
    percent_axis,
    with_percent,
)
from pais_bench.reports.style import ap_span, beside, marks_of_others
from pais_bench.study.study import Study


def chart(study: Study, runs: pd.DataFrame, points: pd.DataFrame) -> Chart:
    """Return a panel per network; runs is that of Results, AP 0..1; points are those of the figure, in percent."""
    networks = list(dict.fromkeys([*study.networks, *points["network"]]))
    done = runs[runs["state"] == "done"].dropna(subset=["segm_AP"])
    done = done.assign(AP=100 * done["segm_AP"].astype(float))
    own = points[(points["paper"] == "") & (points["external"] == "")]
    keys = legend(study, own["method"])
    others = _other_keys(study, points)
    every = pd.concat([points[["AP", "AP_std"]].astype(float), done[["AP"]]])
    layout = {
        "xaxis": percent_axis(sorted(study.split.percents)),
        "yaxis": axis(f"mask AP of the {study.report.model} (%)", *ap_span(every["AP"], every["AP_std"])),
    }
    panels = []
    for network in networks:
        cell, folds = points[points["network"] == network], done[done["network"] == network]
        traces = [trace for index, entry in enumerate(keys) for trace in _method(entry, index, len(keys), cell, folds)]
        traces += _other_lines(cell, others)
        panels.append(Panel(network if len(networks) > 1 else "", traces, layout))
    return Chart([("", panels)], [*keys, *others.values()])


def _method(entry: Key, index: int, count: int, points: pd.DataFrame, folds: pd.DataFrame) -> list[Trace]:
    """Return the folds and the means of the method of an index, beside those of the count of methods."""
    own = points[(points["method"] == entry.name) & (points["paper"] == "") & (points["external"] == "")]
    own, folds = own.sort_values("percent"), folds[folds["method"] == entry.name]
    if own.empty:
        return []
    small: Any = {"mode": "markers", "opacity": 0.45, "marker": {"color": entry.colour, "size": 5}}
    single = "fold %{customdata[0]}<br>%{customdata[1]} % labels<br>mask AP %{y:.1f}"
    places = beside(folds["percent"], index, count)
    means = own.assign(place=beside(own["percent"], index, count))
    return [
        line(entry, places, folds["AP"], single, with_percent(folds, "fold"), **small),
        means_line(entry, means, "AP", "mask AP"),
    ]


def _other_keys(study: Study, points: pd.DataFrame) -> dict[str, Key]:
    """Return an entry per method of another codebase and per paper."""
    codebases, keys = set(points["external"]), dict[str, Key]()
    for name, mark in marks_of_others(study, points).items():
        entry = key(name, mark, "solid" if name in codebases else "dash")
        keys[name] = replace(entry, symbol=f"{entry.symbol}-open")
    return keys


def _other_lines(points: pd.DataFrame, keys: Mapping[str, Key]) -> list[Trace]:
    traces = []
    for name, entry in keys.items():
        own = points[(points["external"] == name) | ((points["paper"] == name) & (points["external"] == ""))]
        own = own.sort_values("percent")
        if own.empty:
            continue
        if (own["external"] != "").any():
            traces.append(means_line(entry, own.assign(place=own["percent"]), "AP", "mask AP"))
        else:
            hover = "published<br>%{x} % labels<br>mask AP %{y:.1f}"
            traces.append(line(entry, own["percent"], own["AP"], hover, own["percent"]))
    return traces
