"""Which constant of a method matters? Its variants in a study beside each other, by what they change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench import plugins
from pais_bench.config import Study
from pais_bench.reports._cells import folds
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table, signed
from pais_bench.results import Results
from pais_bench.types import LeftOut


class Report:
    """Write ablation.csv (tidy), ablation.md and ablation.tex for a study that lists a method more than once."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write mask AP in percent of each variant, and the mean difference to the reference over the same folds.

        The reference is the entry that bears the method's own name, or else the method's first. Raises LeftOut for a
        study without variants.
        """
        compared = {label: one for label in study.methods if (one := reference(study, label))}
        if not compared:
            raise LeftOut("the study lists no method more than once")
        frame = pd.DataFrame(_rows(study, results, compared))
        return [
            write_csv(folder / "ablation.csv", frame),
            *_table(study, frame).write(folder, "ablation", f"{study.name}:ablation"),
        ]


def reference(study: Study, label: str) -> str | None:
    """Give the entry that a method of the study is a variant of, itself if it is the reference, None if it has none."""
    name = study.methods[label].name or label
    same = [other for other, method in study.methods.items() if (method.name or other) == name]
    if len(same) == 1:
        return None
    return name if name in same else same[0]


def changes(study: Study, label: str, other: str) -> str:
    """Tell in which options and training settings a method differs from another of the same plugin."""
    ours, theirs = _settings(study, label), _settings(study, other)
    named = [f"{key} {_text(ours[key])}" for key in ours if ours[key] != theirs[key]]
    return ", ".join(named) or "nothing"


def _settings(study: Study, label: str) -> dict[str, Any]:
    method = study.methods[label]
    options = plugins.load("methods", method.name or label).Options(**method.options)
    training = study.training.model_dump() | dict(method.training)
    return {**options.model_dump(), **training, "teacher": method.teacher}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _rows(study: Study, results: Results, compared: Mapping[str, str]) -> list[dict[str, Any]]:
    done = results.runs[results.runs["state"] == "done"]
    return [
        _row(study, done, compared, network, label, percent)
        for network in study.networks
        for label in compared
        for percent in study.split.percents
    ]


def _row(
    study: Study, done: pd.DataFrame, compared: Mapping[str, str], network: str, label: str, percent: float
) -> dict[str, Any]:
    other = compared[label]
    ours, theirs = (folds(done, network, one, percent)["AP"] for one in (label, other))
    paired = (ours - theirs).dropna()
    return {
        "network": network,
        "reference": other,
        "method": label,
        "changed": "" if label == other else changes(study, label, other),
        "percent": percent,
        "folds": len(ours),
        "AP": ours.mean(),
        "AP_std": ours.std(),
        "difference": math.nan if label == other else paired.mean(),
    }


def _table(study: Study, frame: pd.DataFrame) -> Table:
    percents = [f"{percent:g} %" for percent in study.split.percents]
    rows = [
        [str(network), str(label), str(changed) or "(reference)", *map(_cell, group.to_dict("records"))]
        for (network, label, changed), group in frame.groupby(["network", "method", "changed"], sort=False)
    ]
    count = len(study.split.folds)
    caption = (
        f"Mask AP (%) of the {study.told} on {study.dataset.label}: methods with some constants changed. "
        f"Splits: family {study.split.family}, {count} fold{'s' if count > 1 else ''}. In parentheses: mean difference "
        "to the reference on the same folds. Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
    )
    missing = int((frame["folds"] < count).sum())
    notes = [f"{missing} of {len(frame)} cells lack folds."] if missing else []
    return Table(caption, ["network", "method", "changed", *percents], rows, 3, notes)


def _cell(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["AP"]):
        return "–"
    spread = "" if math.isnan(row["AP_std"]) else f" ± {row['AP_std']:.1f}"
    return f"{row['AP']:.1f}{spread}" + ("" if math.isnan(row["difference"]) else f" ({signed(row['difference'])})")
