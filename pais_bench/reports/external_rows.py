"""Label the rows of predictions of other codebases, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pais_bench.reports.results import Results

MARK = " ‡"
"""The mark of a method of another codebase."""
NO_LOG = "‡ predictions of another codebase: their training log is not available"


def external_labels(results: Results, frame: pd.DataFrame) -> pd.Series:
    """Return the label of the method of each row; frame has network, method and family of external predictions.

    The label has the split family where a network has the method with several: such rows are never merged.
    """
    families = results.external.groupby(["network", "method"])["family"].nunique()
    labels = [
        f"{method}{MARK}" + (f" ({family})" if families[network, method] > 1 else "")
        for network, method, family in zip(frame["network"], frame["method"], frame["family"], strict=True)
    ]
    return pd.Series(labels, index=frame.index, dtype=object)


def rows_without_log(results: Results, columns: Sequence[str]) -> pd.DataFrame:
    """Return a row of 0 folds for each external cell, as a figure of training logs has no points for it."""
    external = results.external.assign(method=external_labels(results, results.external), folds=0)
    return external[[*columns, "folds"]].drop_duplicates()


def no_log_note(points: pd.DataFrame) -> str:
    """Return a sentence that names the network and method of rows_without_log; empty where there are none."""
    rows = points.loc[points["folds"] == 0, ["network", "method"]].drop_duplicates()
    return f"{NO_LOG} ({', '.join(rows['network'] + ' ' + rows['method'])})." if len(rows) else ""


def source_notes(results: Results) -> list[str]:
    """Return the note of a table with external rows or columns: their splits and their sources."""
    rows = results.external.drop_duplicates(["network", "method", "family", "source"])
    texts = [f"{row['network']} {row['method']}: splits {row['family']}, {row['source']}" for _, row in rows.iterrows()]
    return [f"‡ predictions of another codebase, evaluated here. {'; '.join(texts)}."] if texts else []
