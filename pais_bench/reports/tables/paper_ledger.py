"""Compare measured mask AP with the numbers of papers, where they are comparable."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pandas as pd

from pais_bench.reports import published
from pais_bench.reports.cells import cells, in_cell
from pais_bench.reports.published import LEGEND, MARKS, normalized
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, signed
from pais_bench.study.study import Study

COLUMNS = [
    *("method", "detector", "backbone", "dataset", "split_family", "protocol", "percent", "metric", "paper", "tag"),
    *("source", "network", "ours", "difference", "not_comparable"),
]


class Report(TableReport):
    """Write every published cell as CSV, and those of the study's methods as a table."""

    title = "Published and measured mask AP"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return each published cell beside the study's of that method and percent; differences where comparable.

        Raises NothingToShow for data that no paper has.
        """
        measured = cells(study, results)
        rows = []
        for row in published.read_for(study):
            labels = published.labels_of(study, row.plugin or row.method)
            pairs = list(itertools.product(study.networks, labels)) or [("", "")]
            for cell, (network, label) in itertools.product(row.cells, pairs):
                ap = measured.loc[in_cell(measured, network, label, cell.percent), cell.metric]
                rows.append(_row(study, row, cell, network, ap))
        return pd.DataFrame(rows, columns=COLUMNS)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return a row per published cell of a method of the study."""
        rows = [
            [
                *(row["method"], f"{row['detector']} {row['backbone']}", row["dataset"], _labels(row)),
                *(row["network"], f"{row['paper']:g}{MARKS[row['tag']]}"),
                "–" if math.isnan(row["ours"]) else f"{row['ours']:.1f}",
                *("–" if math.isnan(row["difference"]) else signed(row["difference"]), row["not_comparable"] or "–"),
            ]
            for _, row in frame[frame["network"] != ""].iterrows()
        ]
        caption = (
            f"Mask AP (%) in papers and measured here ({study.dataset.label}, split family {study.split.family}, "
            f"{study.printed}). Protocol: COCO AP at IoU 0.50:0.95, or at 0.50 where AP50 is named. A difference is "
            "given only where dataset, splits, detector, backbone and clean labels agree."
        )
        columns = ["method", "network of the paper", "dataset", "labels", "network here", "paper", "here", "difference"]
        notes = [LEGEND] if rows else ["No method of the study is in the ledger."]
        return Table(caption, [*columns, "not comparable"], rows, 5, notes)


def _row(study: Study, row: published.Row, cell: published.Cell, network: str, ap: pd.Series) -> dict[str, Any]:
    reasons = _reasons(study, row, network) if network else []
    return {
        **row.model_dump(exclude={"cells", "plugin"}),
        **cell.model_dump(exclude={"ap"}),
        "paper": cell.ap,
        "network": network if len(ap) else "",
        "ours": float(ap.mean()),
        "difference": math.nan if reasons else float(ap.mean()) - cell.ap,
        "not_comparable": ", ".join(reasons) if len(ap) else "not in the study",
    }


def _labels(row: pd.Series) -> str:
    """Return the percent of labels, and the metric where it is not AP."""
    return f"{row['percent']:g} %" + ("" if row["metric"] == "AP" else f", {row['metric']}")


def _reasons(study: Study, row: published.Row, network: str) -> list[str]:
    """Return what differs between a paper's row and the study; a backbone that is not an option is ResNet-50."""
    options = study.networks[network]
    backbone = str(options.options.get("backbone", "resnet50"))
    facts = {
        "dataset": (row.dataset, study.dataset.name),
        "split family": (row.split_family, study.split.family),
        "detector": (row.detector, options.name),
        "backbone": (row.backbone, re.sub("^resnet", "r", backbone)),
        "labels": ("clean", study.split.label_noise.name if study.split.label_noise else "clean"),
    }
    differing = {name: pair for name, pair in facts.items() if normalized(pair[0]) != normalized(pair[1])}
    return [f"{name} {here} for {paper}" for name, (paper, here) in differing.items()]
