"""How far are our numbers from the papers', and where may they not be compared at all?"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench import published
from pais_bench.config import Study
from pais_bench.published import plain
from pais_bench.reports._cells import cells
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table, signed
from pais_bench.results import Results

MARKS = {"verified": "", "secondary": "*", "unverified": "?"}
COLUMNS = [
    *("method", "detector", "backbone", "dataset", "split_family", "protocol", "percent", "paper", "tag", "source"),
    *("network", "ours", "difference", "not_comparable"),
]


class Report:
    """Write paper_ledger.csv (every published cell), paper_ledger.md and paper_ledger.tex (those of our methods)."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Set each published cell beside ours of the same method and percent; a difference only where comparable."""
        frame = _compared(study, results)
        table = _table(study, frame)
        paths = table.write(folder, "paper_ledger", f"{study.name}:papers")
        return [write_csv(folder / "paper_ledger.csv", frame), *paths]


def _compared(study: Study, results: Results) -> pd.DataFrame:
    ours = cells(study, results)
    rows = []
    for row in published.read():
        labels = [label for label, one in study.methods.items() if plain(one.name or label) == plain(row.method)]
        asked: list[str | None] = [*labels] or [None]
        for cell, (network, label) in itertools.product(
            row.cells, itertools.product(study.networks if labels else [""], asked)
        ):
            chosen = (ours["network"] == network) & (ours["method"] == label) & (ours["percent"] == cell.percent)
            rows.append(_row(study, row, cell, network, ours.loc[chosen, "AP"]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(study: Study, row: published.Row, cell: published.Cell, network: str, ap: pd.Series) -> dict[str, Any]:
    value = float(ap.mean())
    reasons = _reasons(study, row, network) if network else []
    told = row.model_dump(exclude={"cells"}) | {"percent": cell.percent, "tag": cell.tag, "source": cell.source}
    return {
        **told,
        "paper": cell.ap,
        "network": network if len(ap) else "",
        "ours": value,
        "difference": math.nan if reasons else value - cell.ap,
        "not_comparable": ", ".join(reasons) if len(ap) else "not in the study",
    }


def _reasons(study: Study, row: published.Row, network: str) -> list[str]:
    """Say what differs between a paper's row and ours; a backbone that options do not tell is ResNet-50."""
    chosen = study.networks[network]
    backbone = str(chosen.options.get("backbone", "resnet50"))
    detector = chosen.name or network
    facts = {
        "dataset": (row.dataset, study.dataset.name if study.dataset.label == study.dataset.name else "own data"),
        "split family": (row.split_family, study.split.family),
        "detector": (row.detector, detector),
        "backbone": (row.backbone, re.sub("^resnet", "r", backbone)),
    }
    return [f"{name} {ours} for {paper}" for name, (paper, ours) in facts.items() if plain(paper) != plain(ours)]


def _table(study: Study, frame: pd.DataFrame) -> Table:
    shown = frame[frame["network"] != ""]
    rows = [
        [
            *(row["method"], f"{row['detector']} {row['backbone']}", row["dataset"], f"{row['percent']:g} %"),
            *(row["network"], f"{row['paper']:g}{MARKS[row['tag']]}"),
            *("–" if math.isnan(row["ours"]) else f"{row['ours']:.1f}",),
            *("–" if math.isnan(row["difference"]) else signed(row["difference"]), row["not_comparable"] or "–"),
        ]
        for _, row in shown.iterrows()
    ]
    caption = (
        f"Mask AP (%) in papers and ours ({study.dataset.label}, split family {study.split.family}, {study.told}). "
        "Protocol: COCO AP at IoU 0.50:0.95. A difference stands only where data, splits, detector, backbone agree."
    )
    notes = [
        "Published value without mark: read in the paper's own abstract or page; *: in a later paper's table or on a "
        "mirror; ?: unverified, recalled and seen nowhere."
    ]
    heads = ["method", "network of the paper", "data", "labels", "ours is", "paper", "ours", "difference", "why not"]
    return Table(caption, heads, rows, 5, notes if rows else ["No method of the study is in the ledger."])
