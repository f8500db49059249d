"""Tabulate which classes are detected as which others, for each method."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.reports.error_analysis import MISSING, analyses, axes, require_store
from pais_bench.reports.external_rows import source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport
from pais_bench.study.study import Study

PAIRS = 5
"""Pairs of classes that the table has of each network and percent."""
CELL = ["network", "percent", "method"]


class Report(TableReport):
    """Write a row per network, percent and confused pair of classes, and a column per method."""

    title = "Confusion of classes"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the objects of each class and what they are detected as, summed over the evaluated folds.

        detected_as is empty where no detection has an IoU of 0.5. Raises NothingToShow without any prediction.
        """
        store = require_store(study, results)
        names = dict(store.categories)
        counts: defaultdict[tuple[str, float, str], Counter[tuple[str, str]]] = defaultdict(Counter)
        for one in analyses(results, store):
            for true, detected, number in one.content["confusion"]:
                counts[one.network, one.percent, one.method][names[true], names.get(detected, "")] += number
        if not counts:
            raise NothingToShow(MISSING)
        rows = [(*cell, *pair, number) for cell, of_cell in counts.items() for pair, number in of_cell.items()]
        frame = pd.DataFrame(rows, columns=[*CELL, "class", "detected_as", "objects"])
        of_class = frame.groupby([*CELL, "class"])["objects"].transform("sum")
        return frame.assign(percent_of_class=100 * frame["objects"] / of_class)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the objects with the right class and without a detection, and the PAIRS confused most."""
        networks, percents, methods = axes(study, frame)
        rows = []
        for network, percent in itertools.product(networks, percents):
            cell = frame[(frame["network"] == network) & (frame["percent"] == percent)]
            if not cell.empty:
                rows += [[network, f"{percent:g} %", *row] for row in _rows(cell, methods)]
        caption = (
            f"What the objects of a class on {study.dataset.label} are detected as by the {study.printed}, in % of the "
            "class, over all evaluated folds: the class of the detection with the highest score whose mask has an IoU "
            f"of 0.5 or more. The {PAIRS} pairs of classes with the most objects, over all methods."
        )
        notes = source_notes(results) if frame["method"].str.contains("‡").any() else []
        return Table(caption, ["network", "labels", "class", "detected as", *methods], rows, 4, notes)


def _rows(cell: pd.DataFrame, methods: list[str]) -> list[list[str]]:
    right, nothing = cell["class"] == cell["detected_as"], cell["detected_as"] == ""
    wrong = cell[~right & ~nothing]
    pairs = wrong.groupby(["class", "detected_as"])["objects"].sum().nlargest(PAIRS).index
    total = cell.groupby("method")["objects"].sum()
    rows = [
        ["all", name, *_percents(100 * cell[rows].groupby("method")["objects"].sum() / total, total, methods)]
        for name, rows in (("the same", right), ("nothing", nothing))
    ]
    for pair in pairs:
        of_pair = wrong[(wrong["class"] == pair[0]) & (wrong["detected_as"] == pair[1])]
        rows.append([*pair, *_percents(of_pair.set_index("method")["percent_of_class"], total, methods)])
    return rows


def _percents(values: pd.Series, evaluated: pd.Series, methods: list[str]) -> list[str]:
    """Return a cell per method: 0.0 where it was evaluated and has none, a dash where it was not."""
    known = values.dropna().to_dict()
    return [f"{known.get(method, 0.0):.1f}" if method in evaluated else "–" for method in methods]
