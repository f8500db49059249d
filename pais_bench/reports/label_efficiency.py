"""How many labels does each method save? AP against the percent of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from pais_bench import published
from pais_bench.config import Study
from pais_bench.reports._cells import cells, external_cells
from pais_bench.reports._external import named
from pais_bench.reports._figure import FigureReport
from pais_bench.reports._style import GREY, Mark, draw, empty, legend, marks, spread
from pais_bench.results import Results

DASHED: Any = {"linewidth": 0.9, "linestyle": (0, (4, 2)), "markersize": 3}
OTHER: Any = {"linewidth": 0.9, "markersize": 6, "fillstyle": "none"}
MARKS = {"verified": "", "secondary": "*", "unverified": "?"}


class Report(FigureReport):
    """Draw our cells, those of other codebases and, on a data set of the ledger, what papers report.

    Papers stand beside the network that is their detector.
    """

    stem = "label_efficiency"
    texts = ("network", "method", "paper", "external")
    numbers = ("percent", "folds", "AP", "AP_std")
    figures = {
        "label_efficiency": "Mask AP against the percent of labelled images, on a logarithmic axis. Error bars: sample "
        "standard deviation over folds. Hollow, ‡: predictions of another codebase, evaluated here. Dashed: published "
        "with the same detector, on other splits where the ledger says so; * read in a later paper's table or on a "
        "mirror, ? unverified."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give AP in percent 0..100; paper and external are empty for ours, and else what the line is called."""
        ours = cells(study, results).dropna(subset=["AP"]).assign(paper="", external="")
        columns = [*self.texts, *self.numbers]
        return pd.concat([ours[columns], _external(study, results), _published(study)], ignore_index=True)[columns]

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a panel per network, those of other codebases last, and a line per method."""
        networks = list(dict.fromkeys([*study.networks, *points["network"]]))
        beside = 1.2 if _beside(points).any() else 0.0
        size = (0.5 + (3.0 + beside) * len(networks), 3.0 + beside)
        return draw(lambda figure: _paint(figure, study, networks, points), size, folder, self.stem)


def _external(study: Study, results: Results) -> pd.DataFrame:
    """Give the cells of other codebases, in the colour of our method of that name."""
    found = external_cells(study, results).dropna(subset=["AP"])
    methods = [_ours(study, method) for method in found["method"]]
    return found.assign(paper="", external=named(results, found), method=methods).astype(object)


def _beside(points: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to a line whose name stands beside it."""
    return (points["paper"] != "") | (points["external"] != "")


def _published(study: Study) -> pd.DataFrame:
    """Give the ledger's cells of the study's data set, by the network whose detector they have."""
    rows = []
    for row in published.read() if study.dataset.label == study.dataset.name else ():
        for network, chosen in study.networks.items():
            if row.dataset != study.dataset.name or published.plain(row.detector) != published.plain(
                chosen.name or network
            ):
                continue
            worst = max((cell.tag for cell in row.cells), key=list(MARKS).index)
            label = f"{row.method}, {row.backbone}{MARKS[worst]}"
            for cell in row.cells:
                if cell.percent in study.split.percents:
                    known = {"network": network, "method": _ours(study, row.method), "paper": label, "external": ""}
                    rows.append({**known, "percent": cell.percent, "AP": cell.ap})
    return pd.DataFrame(rows, columns=[*Report.texts, *Report.numbers], dtype=object)


def _ours(study: Study, method: str) -> str:
    """Give our label of a published method; nothing where the study has it not."""
    wanted = published.plain(method)
    return next((label for label, one in study.methods.items() if published.plain(one.name or label) == wanted), "")


def _paint(figure: Figure, study: Study, networks: list[str], points: pd.DataFrame) -> None:
    panels = figure.subplots(1, len(networks), sharex=True, sharey=True, squeeze=False)[0]
    beside = _beside(points)
    for axes, network in zip(panels, networks, strict=True):
        _scale(axes, sorted(study.split.percents))
        here = points["network"] == network
        if not here.any():
            empty(axes)
        _draw_ours(axes, study, points[here & ~beside])
        _draw_others(axes, study, points[here & beside])
        axes.set_title(network if len(panels) > 1 else "")
    panels[0].set_ylabel(f"mask AP of the {study.model} (%)")
    if not points.empty:
        panels[0].set_ylim(bottom=0)
    for axes, network in zip(panels, networks, strict=True):
        _name_others(axes, study, points[(points["network"] == network) & beside])
    folds = len(study.split.folds)
    entries: list[Line2D | Patch] = [mark.handle(method) for method, mark in marks(study).items()]
    if (points["external"] != "").any():
        entries.append(Mark("black", "o").handle("another codebase ‡"))
        entries[-1].set(**OTHER, markeredgecolor="black")
    if (points["paper"] != "").any():
        entries.append(Line2D([], [], color="black", label="published", **DASHED))
    legend(figure, entries, f"mean ± s.d. of {folds} folds" if folds > 1 else None)


def _scale(axes: Axes, percents: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(percents[0] / 1.25, percents[-1] * 1.25)
    axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("labelled images (%)")


def _draw_ours(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    for method, mark in marks(study).items():
        drawn = points[points["method"] == method].sort_values("percent")
        if not drawn.empty:
            _errorbar(axes, drawn, mark)


def _errorbar(axes: Axes, drawn: pd.DataFrame, mark: Mark, **look: Any) -> None:
    spread = drawn["AP_std"].astype(float)
    bars: Any = {"yerr": spread if spread.notna().any() else None, "elinewidth": 0.8, "capsize": 2}
    axes.errorbar(drawn["percent"], drawn["AP"], color=mark.colour, marker=mark.marker, **bars, **look)


def _draw_others(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    """Draw a line per paper and per method of another codebase, in the colour of our method of that name, or grey."""
    for drawn in _lines(points):
        mark = _mark(study, drawn)
        if drawn["external"].iloc[0]:
            _errorbar(axes, drawn, mark, **OTHER, markeredgecolor=mark.colour, zorder=3)
        else:
            axes.plot(drawn["percent"], drawn["AP"], color=mark.colour, marker=mark.marker, zorder=1.5, **DASHED)


def _lines(points: pd.DataFrame) -> list[pd.DataFrame]:
    return [drawn for _, drawn in points.sort_values("percent").groupby(["paper", "external"], sort=False)]


def _name_others(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    """Write the name of each line beside its end, or as near as the other names let it."""
    lines = _lines(points)
    for drawn in (one for one in lines if one["percent"].iloc[-1] < max(study.split.percents)):
        last = drawn.iloc[-1]
        look: Any = {"textcoords": "offset points", "color": _mark(study, drawn).colour, "fontsize": 7, "va": "center"}
        look["path_effects"] = [effects.withStroke(linewidth=1.5, foreground="white")]
        axes.annotate(_name(drawn), (last["percent"], last["AP"]), (6, 0), **look)
    lines = [one for one in lines if one["percent"].iloc[-1] == max(study.split.percents)]
    heights = spread([float(drawn["AP"].iloc[-1]) for drawn in lines], gap=0.055 * axes.get_ylim()[1])
    for drawn, height in zip(lines, heights, strict=True):
        colour = _mark(study, drawn).colour
        look = {"xycoords": ("axes fraction", "data"), "color": colour, "fontsize": 7, "va": "center"}
        axes.annotate(_name(drawn), (1.03, height), **look)


def _name(line: pd.DataFrame) -> str:
    return str(line["external"].iloc[0] or line["paper"].iloc[0])


def _mark(study: Study, line: pd.DataFrame) -> Mark:
    return marks(study).get(line["method"].iloc[0], Mark(GREY, "o"))
