"""How are predictions of other codebases called in a report, and what is said of them? The same in every report."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pais_bench.results import Results

MARK = " ‡"
"""What marks a method of another codebase."""
NO_LOG = "‡ predictions of another codebase: no log of their training is here"
"""What is said once where a log of the training would be needed."""


def named(results: Results, frame: pd.DataFrame) -> pd.Series:
    """Give what the method of each row is called; frame has network, method and family of external predictions.

    The split family is told where a network has the method of several: such rows are never one.
    """
    families = results.external.groupby(["network", "method"])["family"].nunique()
    labels = [
        f"{method}{MARK}" + (f" ({family})" if families[network, method] > 1 else "")
        for network, method, family in zip(frame["network"], frame["method"], frame["family"], strict=True)
    ]
    return pd.Series(labels, index=frame.index, dtype=object)


def without_log(results: Results, cell: Sequence[str]) -> pd.DataFrame:
    """Give the cells of which a figure has no points, because no training is here: named, and of no fold."""
    others = results.external.assign(method=named(results, results.external), folds=0)
    return others[[*cell, "folds"]].drop_duplicates()


def no_log(points: pd.DataFrame) -> str:
    """Say of which rows of without_log, of network and method, no log is here; nothing where there are none."""
    missing = points.loc[points["folds"] == 0, ["network", "method"]].drop_duplicates()
    return f"{NO_LOG} ({', '.join(missing['network'] + ' ' + missing['method'])})." if len(missing) else ""


def notes(results: Results) -> list[str]:
    """Give the note of a table that has rows or columns of them: their splits and their sources."""
    told = results.external.drop_duplicates(["network", "method", "family", "source"])
    rows = [f"{row['network']} {row['method']}: splits {row['family']}, {row['source']}" for _, row in told.iterrows()]
    return [f"‡ predictions of another codebase, evaluated here. {'; '.join(rows)}."] if rows else []
