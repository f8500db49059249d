"""Set the highest published mask AP of each dataset and percent beside the highest measured here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from pais_bench.reports.cells import bounds, cells
from pais_bench.reports.published import LEGEND, MARKS, Cell, Row, normalized, read_for
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport
from pais_bench.study.study import Study

KINDS = ("R-50", "any")
"""Backbones among which a record is: ResNet-50, or any."""
COLUMNS = [
    *("dataset", "percent", "backbones", "method", "detector", "backbone", "split_family", "paper", "tag", "source"),
    *("network", "own_method", "ours"),
]


class Report(TableReport):
    """Write a row per dataset and percent: the record with ResNet-50, the one with any backbone, and ours."""

    title = "Highest published mask AP"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return a row per dataset, percent and kind of backbone, with the study's best method on that dataset.

        Raises NothingToShow for data that no paper has.
        """
        published = [(row, cell) for row in read_for(study) for cell in row.cells if cell.metric == "AP"]
        places = sorted({(row.dataset, cell.percent) for row, cell in published}, key=lambda place: place[1])
        measured = cells(study, results).dropna(subset=["AP"])
        measured = measured[~measured["method"].isin(bounds(study))]
        rows = []
        for dataset in dict.fromkeys(row.dataset for row, _ in published):
            for percent in (percent for name, percent in places if name == dataset):
                here = [pair for pair in published if (pair[0].dataset, pair[1].percent) == (dataset, percent)]
                own = _best_own(study, measured, dataset, percent)
                place = {"dataset": dataset, "percent": percent}
                rows += [{**place, "backbones": kind, **_record(here, kind), **own} for kind in KINDS]
        return pd.DataFrame(rows, columns=COLUMNS)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return a row per dataset and percent."""
        rows = []
        for (dataset, percent), group in frame.groupby(["dataset", "percent"], sort=False):
            records = group.set_index("backbones").loc[list(KINDS)]
            ours = records.iloc[0]
            own = "–" if math.isnan(ours["ours"]) else f"{ours['own_method']}, {ours['network']}: {ours['ours']:.1f}"
            rows.append([str(dataset), f"{percent:g} %", *(_text(row) for _, row in records.iterrows()), own])
        caption = (
            "The highest mask AP (%) of the ledger of published numbers for each dataset and percent of labels, with "
            f"ResNet-50 and with any backbone, and the highest measured here ({study.dataset.label}, {study.printed}). "
            "Records mix detectors, splits, schedules and unlabelled images; paper_ledger says what is comparable."
        )
        columns = ["dataset", "labels", "record with ResNet-50", "record with any backbone", "here"]
        return Table(caption, columns, rows, 5, [LEGEND])


def _record(published: Iterable[tuple[Row, Cell]], kind: str) -> dict[str, Any]:
    """Return the highest of the published cells whose backbone is of a kind, the first of equals; empty for none."""
    fitting = [(row, cell) for row, cell in published if kind in ("any", row.backbone)]
    if not fitting:
        return {"paper": math.nan}
    row, cell = max(fitting, key=lambda pair: pair[1].ap)
    keys = {"method", "detector", "backbone", "split_family"}
    return {**row.model_dump(include=keys), "paper": cell.ap, "tag": cell.tag, "source": cell.source}


def _best_own(study: Study, measured: pd.DataFrame, dataset: str, percent: float) -> dict[str, Any]:
    """Return the study's highest cell of a percent where its data is the published dataset."""
    same = normalized(study.dataset.name) == normalized(dataset)
    here = measured[measured["percent"] == percent] if same else measured[:0]
    if here.empty:
        return {"ours": math.nan}
    best = here.nlargest(1, "AP").iloc[0]
    return {"network": best["network"], "own_method": best["method"], "ours": best["AP"]}


def _text(row: pd.Series) -> str:
    """Return a record as method, backbone and number with its mark."""
    return (
        "–" if math.isnan(row["paper"]) else f"{row['method']}, {row['backbone']}: {row['paper']:g}{MARKS[row['tag']]}"
    )
