"""What do other protocols say of the same predictions? Every number under the name of its evaluator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.config import Study
from pais_bench.evaluation import protocols
from pais_bench.reports._external import named, notes
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table
from pais_bench.results import Results

COLUMNS = ["network", "method", "percent", "protocol", "number", "folds", "value"]


class Report:
    """Write protocols.csv (tidy, every number), protocols.md and protocols.tex: a row per cell and protocol."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write percents, means over the finished folds; a dash where a protocol has no such number."""
        frame = _numbers(study, results)
        shown = frame["method"].isin(named(results, results.external))
        table = _table(study, frame, notes(results) if shown.any() else [])
        return [
            write_csv(folder / "protocols.csv", frame),
            *table.write(folder, "protocols", f"{study.name}:protocols"),
        ]


def _numbers(study: Study, results: Results) -> pd.DataFrame:
    """Give COLUMNS of what is evaluated, in the order of study and protocols; then of other codebases."""
    others = results.external.assign(method=named(results, results.external))
    grid = itertools.product(study.networks, study.methods, study.split.percents)
    cells = [*((results.runs, *cell) for cell in grid)]
    cells += [(others, *cell) for cell in others[COLUMNS[:3]].drop_duplicates().itertuples(index=False, name=None)]
    return pd.DataFrame([row for cell in cells for row in _cell(*cell)], columns=COLUMNS)


def _cell(frame: pd.DataFrame, network: str, method: str, percent: float) -> Iterator[list[Any]]:
    """Give the rows of a cell, a mean over what is evaluated each."""
    here = (frame["network"] == network) & (frame["method"] == method) & (frame["percent"] == percent)
    chosen = frame[here & (frame["state"] == "done")]
    for key, protocol in protocols().items():
        for column in (name for name in frame.columns if name.startswith(f"{key}_")):
            values = chosen[column].astype(float).dropna() * 100
            if len(values):
                yield [network, method, percent, protocol, column.removeprefix(f"{key}_"), len(values), values.mean()]


def _table(study: Study, frame: pd.DataFrame, told: Sequence[str]) -> Table:
    names = [name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl") if name in set(frame["number"])]
    rows = []
    for _, cell in frame.groupby(COLUMNS[:4], sort=False):
        values = dict(zip(cell["number"], cell["value"], strict=True))
        texts = [f"{values[name]:.1f}" if name in values else "–" for name in names]
        first = cell.iloc[0]
        rows.append([first["network"], first["method"], f"{first['percent']:g} %", first["protocol"], *texts])
    caption = (
        f"Predictions of the {study.told} on {study.dataset.label} by every protocol of the study (%), mean over the "
        "finished folds. Protocols are different measures: compare within one."
    )
    told = told if rows else ["No run is evaluated yet."]
    return Table(caption, ["network", "method", "labels", "protocol", *names], rows, 4, told)
