"""How many labels does each method save? AP against the percent of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from pais_bench import published
from pais_bench.config import Study
from pais_bench.reports._cells import cells
from pais_bench.reports._figure import FigureReport
from pais_bench.reports._style import GREY, Mark, draw, empty, legend, marks, spread
from pais_bench.results import Results

DASHED: Any = {"linewidth": 0.9, "linestyle": (0, (4, 2)), "markersize": 3}
MARKS = {"verified": "", "secondary": "*", "unverified": "?"}


class Report(FigureReport):
    """Draw our cells and, on a data set of the ledger, what papers report with the same detector."""

    stem = "label_efficiency"
    texts = ("network", "method", "paper")
    numbers = ("percent", "folds", "AP", "AP_std")
    figures = {
        "label_efficiency": "Mask AP against the percent of labelled images, on a logarithmic axis. Error bars: sample "
        "standard deviation over folds. Dashed: published with the same detector, on other splits where the ledger "
        "says so; * read in a later paper's table or on a mirror, ? unverified."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give AP in percent 0..100; paper is empty for ours, and else what the line is called."""
        ours = cells(study, results).dropna(subset=["AP"]).assign(paper="")
        return pd.concat([ours[[*self.texts, *self.numbers]], _published(study)], ignore_index=True)

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw a panel per network and a line per method."""
        beside = 1.2 if (points["paper"] != "").any() else 0.0
        size = (0.5 + (3.0 + beside) * len(study.networks), 3.0 + beside)
        return draw(lambda figure: _paint(figure, study, points), size, folder, self.stem)


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
                    known = {"network": network, "method": _ours(study, row.method), "paper": label}
                    rows.append({**known, "percent": cell.percent, "AP": cell.ap})
    return pd.DataFrame(rows, columns=["network", "method", "paper", "percent", "folds", "AP", "AP_std"], dtype=object)


def _ours(study: Study, method: str) -> str:
    """Give our label of a published method; nothing where the study has it not."""
    wanted = published.plain(method)
    return next((label for label, one in study.methods.items() if published.plain(one.name or label) == wanted), "")


def _paint(figure: Figure, study: Study, points: pd.DataFrame) -> None:
    panels = figure.subplots(1, len(study.networks), sharex=True, sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, study.networks, strict=True):
        _scale(axes, sorted(study.split.percents))
        here = points[points["network"] == network]
        if here.empty:
            empty(axes)
        _draw_ours(axes, study, here[here["paper"] == ""])
        _draw_papers(axes, study, here[here["paper"] != ""])
        axes.set_title(network if len(panels) > 1 else "")
    panels[0].set_ylabel(f"mask AP of the {study.model} (%)")
    if not points.empty:
        panels[0].set_ylim(bottom=0)
    for axes, network in zip(panels, study.networks, strict=True):
        _name_papers(axes, study, points[(points["network"] == network) & (points["paper"] != "")])
    folds = len(study.split.folds)
    entries: list[Line2D | Patch] = [mark.handle(method) for method, mark in marks(study).items()]
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
            axes.errorbar(
                drawn["percent"],
                drawn["AP"],
                yerr=drawn["AP_std"] if len(study.split.folds) > 1 else None,
                color=mark.colour,
                marker=mark.marker,
                elinewidth=0.8,
                capsize=2,
            )


def _draw_papers(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    """Draw a dashed line per paper, in the colour of our method of that name, or grey."""
    for _, drawn in points.sort_values("percent").groupby("paper", sort=False):
        mark = _mark(study, drawn)
        axes.plot(drawn["percent"], drawn["AP"], color=mark.colour, marker=mark.marker, zorder=1.5, **DASHED)


def _name_papers(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    """Write the name of each paper beside the end of its line, or as near as the other names let it."""
    lines = [drawn for _, drawn in points.sort_values("percent").groupby("paper", sort=False)]
    for drawn in (one for one in lines if one["percent"].iloc[-1] < max(study.split.percents)):
        last = drawn.iloc[-1]
        look: Any = {"textcoords": "offset points", "color": _mark(study, drawn).colour, "fontsize": 7, "va": "center"}
        axes.annotate(last["paper"], (last["percent"], last["AP"]), (5, 0), **look)
    lines = [one for one in lines if one["percent"].iloc[-1] == max(study.split.percents)]
    heights = spread([float(drawn["AP"].iloc[-1]) for drawn in lines], gap=0.055 * axes.get_ylim()[1])
    for drawn, height in zip(lines, heights, strict=True):
        text, place = drawn["paper"].iloc[0], (1.03, height)
        colour = _mark(study, drawn).colour
        axes.annotate(text, place, xycoords=("axes fraction", "data"), color=colour, fontsize=7, va="center")


def _mark(study: Study, paper: pd.DataFrame) -> Mark:
    return marks(study).get(paper["method"].iloc[0], Mark(GREY, "o"))
