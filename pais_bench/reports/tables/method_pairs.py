"""Test the methods of a study against each other, fold by fold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.evaluation import significance
from pais_bench.reports.cells import bounds, comparable, fold_metrics
from pais_bench.reports.external_rows import source_notes
from pais_bench.reports.gains import LEVEL
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, interval, p_value, signed
from pais_bench.study.study import Study

MAX_PAIRS = 10
"""Pairs of a network and percent that have a row each, those of five methods; nobody reads more."""
NUMBERS = ("difference", "sd_folds", "low", "high", "p", "p_sign_flip")


class Report(TableReport):
    """Write a row per network, percent and pair of methods, supervised among them, oracle not."""

    title = "Method against method over folds"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mask AP of second minus first in percent 0..100, over the folds that have both; NaN where none has.

        Methods of other codebases follow where network and split family are the study's. p is of the paired t test,
        p_holm is corrected over the pairs of a network and percent, those that are still to be trained among them.
        Raises NothingToShow where no pair has two folds.
        """
        done = comparable(study, results)
        rows = []
        for network, percent in itertools.product(study.networks, study.split.percents):
            in_cell = (done["network"] == network) & (done["percent"] == percent)
            own = study.methods_of(network)
            methods = [one for one in dict.fromkeys([*own, *done.loc[in_cell, "method"]]) if one not in bounds(study)]
            ap = {method: fold_metrics(done, network, method, percent)["AP"] for method in methods}
            pairs = list(itertools.combinations(methods, 2))
            numbers = [_pair((ap[second] - ap[first]).dropna()) for first, second in pairs]
            corrected = significance.holm([pair["p"] for pair in numbers], len(numbers))
            for (first, second), pair, p in zip(pairs, numbers, corrected, strict=True):
                header = {"network": network, "percent": percent, "first": first, "second": second}
                rows.append({**header, **pair, "p_holm": p})
        if all(row["folds"] < 2 for row in rows):
            raise NothingToShow("no two methods have two finished folds in common")
        return pd.DataFrame(rows)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where there are too few folds. Many pairs are a matrix per network and percent."""
        if frame.groupby(["network", "percent"]).size().max() > MAX_PAIRS:
            return _matrix(study, results, frame)
        exact = bool(frame["p_sign_flip"].notna().any())
        columns = ["network", "labels", "first", "second", "folds", "second − first", "95 % interval", "p (Holm)"]
        caption = (
            f"Difference in mask AP (points) of the {study.printed} between the methods on {study.dataset.label}, "
            "paired by fold. Interval and p: paired t test over the folds, which covers other trainings, evaluated on "
            "these images; p corrected by Holm over the pairs of a network and percent."
        )
        if exact:
            columns.append("p, sign flip")
            caption += " p, sign flip: exact test over all patterns of signs, not corrected."
        return Table(caption, columns, [_row(row, exact) for _, row in frame.iterrows()], 4, _notes(results, frame))


def _pair(differences: pd.Series) -> dict[str, Any]:
    if differences.empty:
        return {"folds": 0, **dict.fromkeys(NUMBERS, math.nan)}
    interval_of = significance.over_folds(differences)
    tests = (significance.paired_t(differences), significance.sign_flip(differences))
    values = (interval_of.mean, interval_of.sd, interval_of.low, interval_of.high, *tests)
    return {"folds": len(differences), **dict(zip(NUMBERS, values, strict=True))}


def _notes(results: Results, frame: pd.DataFrame) -> list[str]:
    few = int((frame["folds"] < significance.MIN_FOLDS).sum())
    folds = f"fewer than {significance.MIN_FOLDS} folds in common"
    note = f"{few} of {len(frame)} pairs have {folds}, which are too few to tell them apart."
    return [note] * (few > 0) + source_notes(results)


def _matrix(study: Study, results: Results, frame: pd.DataFrame) -> Table:
    """Return a row per method that is second in a pair, and a column per method that is first, by its number."""
    methods = list(dict.fromkeys([*frame["first"], *frame["second"]]))
    number = {method: str(index) for index, method in enumerate(methods, start=1)}
    firsts = [method for method in methods if (frame["first"] == method).any()]
    rows = []
    for (network, percent, second), pairs in frame.groupby(["network", "percent", "second"], sort=False):
        known = {row["first"]: _difference(row) for _, row in pairs.iterrows()}
        head = [str(network), f"{percent:g} %", f"{number[second]} {second}"]
        rows.append([*head, *(known.get(first, "") for first in firsts)])
    caption = (
        f"Difference in mask AP (points) of the {study.printed} between the methods on {study.dataset.label}, paired "
        f"by fold: the method of the row minus that of the column, whose number is that of its row; 1 is {methods[0]}. "
        f"In parentheses: not told apart, as p of the paired t test over the folds is {LEVEL:g} or more, corrected by "
        f"Holm over the pairs of a network and percent, or as there are fewer than {significance.MIN_FOLDS} folds. The "
        "CSV has the intervals and p values."
    )
    columns = ["network", "labels", "method", *(number[first] for first in firsts)]
    return Table(caption, columns, rows, 3, _notes(results, frame))


def _difference(row: pd.Series) -> str:
    """Return the difference of a pair, in parentheses where it does not tell them apart."""
    if math.isnan(row["difference"]):
        return "–"
    text = signed(row["difference"])
    told_apart = row["folds"] >= significance.MIN_FOLDS and row["p_holm"] < LEVEL
    return text if told_apart else f"({text})"


def _row(row: pd.Series, exact: bool) -> list[str]:
    return [
        *(row["network"], f"{row['percent']:g} %", row["first"], row["second"], str(row["folds"])),
        "–" if math.isnan(row["difference"]) else signed(row["difference"]),
        interval(row["low"], row["high"]),
        p_value(row["p_holm"]),
        *([p_value(row["p_sign_flip"])] if exact else []),
    ]
