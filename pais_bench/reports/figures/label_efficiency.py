"""Plot mask AP against the percent of labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from pais_bench.reports import published
from pais_bench.reports.cells import cells, external_cells
from pais_bench.reports.chart import Chart
from pais_bench.reports.charts import label_efficiency as charts
from pais_bench.reports.external_rows import external_labels
from pais_bench.reports.figure import FigureReport
from pais_bench.reports.results import Results
from pais_bench.reports.style import (
    Mark,
    ap_span,
    beside,
    draw,
    empty,
    folds_of,
    height,
    legend,
    marks,
    marks_of_others,
    method_handles,
    shrunken,
    spread_apart,
)
from pais_bench.study.study import Study

DASHED: Any = {"linewidth": 0.9, "linestyle": (0, (4, 2))}
DASHED_SIZE, OTHER_SIZE = 3.0, 6.0
"""Points of a circle of a published line, and of one of another codebase."""
OTHER: Any = {"linewidth": 0.9, "fillstyle": "none"}


class Report(FigureReport):
    """Draw the cells of the study, those of other codebases and, for a dataset of the ledger, the numbers of papers.

    Papers are in the panel of the network that is their detector.
    """

    title = "Label efficiency"
    text_columns = ("network", "method", "paper", "external")
    number_columns = ("percent", "folds", "AP", "AP_std")
    optional_columns = ("folds", "AP_std")
    captions = {
        "label_efficiency": "Mask AP against the percent of labelled images, on a logarithmic axis, methods side by "
        "side. Error bars: sample standard deviation over folds."
    }

    def captions_of(self, points: pd.DataFrame) -> dict[str, str]:
        """Return the caption, which explains the marks of other codebases and of papers where there are some."""
        caption = self.captions[self.name]
        if (points["external"] != "").any():
            caption += " Hollow, ‡: predictions of another codebase, evaluated here."
        if (points["paper"] != "").any():
            caption += (
                " Dashed: published with the same detector, on the splits that the paper ledger names; * read in a "
                "later paper's table or on a mirror, ? unverified."
            )
        return {self.name: caption}

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return AP in percent 0..100; paper and external are labels of lines, empty for those of the study."""
        own = cells(study, results).dropna(subset=["AP"]).assign(paper="", external="")
        columns = [*self.text_columns, *self.number_columns]
        return pd.concat([own[columns], _external(study, results), _published(study)], ignore_index=True)[columns]

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Chart]:
        """Return the same panels, with every value where it is pointed at."""
        return {self.name: charts.chart(study, results.runs, points)}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a panel per network, those of other codebases last, and a line per method."""
        networks = list(dict.fromkeys([*study.networks, *points["network"]]))
        margin = 1.2 if _has_label(points).any() else 0.0
        size = (0.5 + (3.0 + margin) * len(networks), height(3.0, points) + margin)
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.name)


def _external(study: Study, results: Results) -> pd.DataFrame:
    """Return the cells of other codebases; method is that of the study with the same name, for its colour."""
    external = external_cells(study, results).dropna(subset=["AP"])
    methods = [_own_method(study, method) for method in external["method"]]
    return external.assign(paper="", external=external_labels(results, external), method=methods).astype(object)


def _has_label(points: pd.DataFrame) -> pd.Series:
    """Return which rows belong to a line that is labelled at its end."""
    return (points["paper"] != "") | (points["external"] != "")


def _published(study: Study) -> pd.DataFrame:
    """Return the ledger's cells of the study's dataset, by the network whose detector they have."""
    rows = []
    for row in published.read() if published.has_numbers_of(study) else ():
        for network, options in study.networks.items():
            detectors = {published.normalized(name) for name in (row.detector, options.name)}
            drawn = [cell for cell in row.cells if cell.metric == "AP" and cell.percent in study.split.percents]
            if row.dataset != study.dataset.name or len(detectors) > 1 or not drawn:
                continue
            worst = max((cell.tag for cell in drawn), key=list(published.MARKS).index)
            line = {
                "network": network,
                "method": _own_method(study, row.plugin or row.method),
                "paper": f"{row.method}, {row.backbone}{published.MARKS[worst]}",
                "external": "",
            }
            rows += [{**line, "percent": cell.percent, "AP": cell.ap} for cell in drawn]
    return pd.DataFrame(rows, columns=[*Report.text_columns, *Report.number_columns], dtype=object)


def _own_method(study: Study, method: str) -> str:
    return next(iter(published.labels_of(study, method)), "")


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    sizes = {"width_ratios": shrunken(networks, points["network"])}
    panels = figure.subplots(1, len(networks), sharex=True, sharey=True, squeeze=False, gridspec_kw=sizes)[0]
    labelled, others = _has_label(points), marks_of_others(study, points)
    for axes, network in zip(panels, networks, strict=True):
        _scale(axes, sorted(study.split.percents))
        in_panel = points["network"] == network
        if not in_panel.any():
            empty(axes)
        _draw_own(axes, study, points[in_panel & ~labelled])
        _draw_others(axes, others, points[in_panel & labelled])
        axes.set_title(network if len(panels) > 1 else "")
    panels[0].set_ylabel(f"mask AP of the {study.report.model} (%)")
    if not points.empty:
        panels[0].set_ylim(*ap_span(points["AP"].astype(float), points["AP_std"]))
    for axes, network in zip(panels, networks, strict=True):
        _label_others(axes, study, others, points[(points["network"] == network) & labelled])
    entries = method_handles(study, points)
    if (points["external"] != "").any():
        entries.append(Mark("black", "o").handle("another codebase ‡"))
        entries[-1].set(**OTHER, markersize=OTHER_SIZE, markeredgecolor="black")
    if (points["paper"] != "").any():
        entries.append(Line2D([], [], color="black", label="published", **DASHED))
    folds = folds_of(points)
    legend(figure, entries, f"mean ± s.d. of {folds}" if folds else None)


def _scale(axes: Axes, percents: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(percents[0] / 1.25, percents[-1] * 1.25)
    axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("labelled images (%)")


def _draw_own(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    shown = [(method, mark) for method, mark in marks(study).items() if (points["method"] == method).any()]
    for index, (method, mark) in enumerate(shown):
        line = points[points["method"] == method].sort_values("percent")
        _errorbar(axes, line.assign(percent=beside(line["percent"], index, len(shown))), **mark.look())


def _errorbar(axes: Axes, line: pd.DataFrame, **style: Any) -> None:
    deviation = line["AP_std"].astype(float)
    bars: Any = {"yerr": deviation if deviation.notna().any() else None, "elinewidth": 0.8, "capsize": 2}
    axes.errorbar(line["percent"], line["AP"], **bars, **style)


def _draw_others(axes: Axes, others: Mapping[str, Mark], points: pd.DataFrame) -> None:
    """Draw a line per paper and per method of another codebase."""
    for label, line in _lines(points):
        mark = others[label]
        if line["external"].iloc[0]:
            _errorbar(axes, line, **mark.look(OTHER_SIZE), **OTHER, markeredgecolor=mark.colour, zorder=3)
        else:
            axes.plot(line["percent"], line["AP"], **mark.look(DASHED_SIZE), zorder=1.5, **DASHED)


def _lines(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return each line with its label."""
    groups = points.sort_values("percent").groupby(["paper", "external"], sort=False)
    return [(str(external or paper), line) for (paper, external), line in groups]


def _label_others(axes: Axes, study: Study, others: Mapping[str, Mark], points: pd.DataFrame) -> None:
    """Write the label of each line beside its end, or as near as the other labels allow."""
    lines = _lines(points)
    for label, line in lines:
        last = line.iloc[-1]
        if last["percent"] < max(study.split.percents):
            style: Any = {"textcoords": "offset points", "color": others[label].colour, "fontsize": 7, "va": "center"}
            style["path_effects"] = [effects.withStroke(linewidth=1.5, foreground="white")]
            axes.annotate(label, (last["percent"], last["AP"]), (6, 0), **style)
    ends = {
        label: float(line["AP"].iloc[-1])
        for label, line in lines
        if line["percent"].iloc[-1] == max(study.split.percents)
    }
    low, high = axes.get_ylim()
    heights = spread_apart([*ends.values()], gap=0.055 * (high - low))
    for label, place in zip(ends, heights, strict=True):
        style = {"xycoords": ("axes fraction", "data"), "color": others[label].colour, "fontsize": 7, "va": "center"}
        axes.annotate(label, (1.03, place), **style)
