"""Tabulate the numbers of every evaluation protocol for the same predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pais_bench import plugins
from pais_bench.evaluation.evaluate import protocols
from pais_bench.reports.cells import in_cell
from pais_bench.reports.external_rows import external_labels, source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport
from pais_bench.study.study import Study

COLUMNS = ["network", "method", "percent", "protocol", "number", "folds", "value"]
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "PQ", "SQ", "RQ", "PQth", "PQst")
"""The numbers that the table prints, where any protocol of the study has them."""


class Report(TableReport):
    """Write every number as CSV, and a table with a row per cell of the grid and protocol."""

    title = "AP by evaluation protocol"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return COLUMNS in percent in the order of study and protocols, then of other codebases."""
        external = results.external.assign(method=external_labels(results, results.external))
        cells = [(results.runs, *cell) for cell in study.cells()]
        others = external[COLUMNS[:3]].drop_duplicates().itertuples(index=False, name=None)
        cells += [(external, *cell) for cell in others]
        return pd.DataFrame([row for cell in cells for row in _numbers(study, *cell)], columns=COLUMNS)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where a protocol has no such number."""
        names = [name for name in NAMES if name in set(frame["number"])]
        rows = []
        for _, cell in frame.groupby(COLUMNS[:4], sort=False):
            values = dict(zip(cell["number"], cell["value"], strict=True))
            texts = [f"{values[name]:.1f}" if name in values else "–" for name in names]
            first = cell.iloc[0]
            rows.append([first["network"], first["method"], f"{first['percent']:g} %", first["protocol"], *texts])
        caption = (
            f"Predictions of the {study.printed} on {study.dataset.label} by every protocol of the study (%), mean "
            "over the finished folds. Protocols are different measures: compare within one."
        )
        notes = [] if rows else ["No run is evaluated yet."]
        if frame["method"].isin(external_labels(results, results.external)).any():
            notes = source_notes(results)
        notes += _unmeasured(study, results)
        return Table(caption, ["network", "method", "labels", "protocol", *names], rows, 4, notes)


def _unmeasured(study: Study, results: Results) -> Iterator[str]:
    """Yield a note for each metric of the study that finished runs were evaluated without."""
    done = results.runs[(results.runs["state"] == "done") & results.runs["segm_AP"].notna()]
    for metric in study.metrics:
        kinds = tuple(f"{key}_" for key in plugins.load("metrics", metric).Metric.protocols)
        columns = [name for name in done.columns if name.startswith(kinds)]
        if lacking := int(done[columns].isna().all(axis=1).sum()):
            yield (
                f"{lacking} of {len(done)} finished runs were evaluated without {metric}; remove their metrics.json, "
                f"and the workflow evaluates them again."
            )


def _numbers(study: Study, frame: pd.DataFrame, network: str, method: str, percent: float) -> Iterator[list[Any]]:
    """Yield a row for each number of a cell, the mean over its evaluated folds."""
    done = frame[in_cell(frame, network, method, percent) & (frame["state"] == "done")]
    for key, protocol in protocols(study.metrics).items():
        for column in (name for name in frame.columns if name.startswith(f"{key}_")):
            values = done[column].astype(float).dropna() * 100
            if len(values):
                yield [network, method, percent, protocol, column.removeprefix(f"{key}_"), len(values), values.mean()]
