"""How are predictions of other codebases called in a report, and what is said of them? The same in every report."""

from __future__ import annotations

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


def notes(results: Results) -> list[str]:
    """Give the note of a table that has rows or columns of them: their splits and their sources."""
    told = results.external.drop_duplicates(["network", "method", "family", "source"])
    rows = [f"{row['network']} {row['method']}: splits {row['family']}, {row['source']}" for _, row in told.iterrows()]
    return [f"‡ predictions of another codebase, evaluated here. {'; '.join(rows)}."] if rows else []
