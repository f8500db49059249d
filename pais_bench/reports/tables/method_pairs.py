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
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, interval, p_value, signed
from pais_bench.study.study import Study

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
        """Return the table; a dash where there are too few folds."""
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
        few = int((frame["folds"] < significance.MIN_FOLDS).sum())
        notes = source_notes(results)
        if few:
            folds = f"fewer than {significance.MIN_FOLDS} folds in common"
            notes.insert(0, f"{few} of {len(frame)} pairs have {folds}, which are too few to tell them apart.")
        return Table(caption, columns, [_row(row, exact) for _, row in frame.iterrows()], 4, notes)


def _pair(differences: pd.Series) -> dict[str, Any]:
    if differences.empty:
        return {"folds": 0, **dict.fromkeys(NUMBERS, math.nan)}
    interval_of = significance.over_folds(differences)
    tests = (significance.paired_t(differences), significance.sign_flip(differences))
    values = (interval_of.mean, interval_of.sd, interval_of.low, interval_of.high, *tests)
    return {"folds": len(differences), **dict(zip(NUMBERS, values, strict=True))}


def _row(row: pd.Series, exact: bool) -> list[str]:
    return [
        *(row["network"], f"{row['percent']:g} %", row["first"], row["second"], str(row["folds"])),
        "–" if math.isnan(row["difference"]) else signed(row["difference"]),
        interval(row["low"], row["high"]),
        p_value(row["p_holm"]),
        *([p_value(row["p_sign_flip"])] if exact else []),
    ]
