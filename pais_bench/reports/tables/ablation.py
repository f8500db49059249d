"""Compare the variants of a method in a study with their reference, by the options that they change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pais_bench import plugins
from pais_bench.errors import NothingToShow
from pais_bench.reports.cells import fold_metrics
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, mean_and_deviation, signed
from pais_bench.study.study import Study


class Report(TableReport):
    """Write a table for a study that has a method more than once.

    The reference is the entry with the method's own name, or else the method's first.
    """

    title = "Ablation of method options"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mask AP of each variant in percent, and the mean difference to the reference over the same folds.

        Raises NothingToShow for a study without variants.
        """
        references = {label: other for label in study.methods if (other := reference(study, label))}
        if not references:
            raise NothingToShow("the study has no method more than once")
        done = results.runs[results.runs["state"] == "done"]
        return pd.DataFrame(
            [
                _row(study, done, network, label, references[label], percent)
                for network, label, percent in study.cells()
                if label in references
            ]
        )

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return a row per network and variant, a column per percent."""
        percents = [f"{percent:g} %" for percent in study.split.percents]
        rows = [
            [str(network), str(label), str(changed) or "(reference)", *map(_cell, group.to_dict("records"))]
            for (network, label, changed), group in frame.groupby(["network", "method", "changed"], sort=False)
        ]
        count = len(study.split.folds)
        caption = (
            f"Mask AP (%) of the {study.printed} on {study.dataset.label}: methods with changed options. "
            f"Splits: family {study.split.family}, {count} fold{'s' if count > 1 else ''}. In parentheses: mean "
            "difference to the reference on the same folds. Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
        )
        missing = int((frame["folds"] < count).sum())
        notes = [f"{missing} of {len(frame)} cells lack folds."] if missing else []
        return Table(caption, ["network", "method", "changed", *percents], rows, 3, notes)


def reference(study: Study, label: str) -> str | None:
    """Return the entry that a method of the study is a variant of, itself for the reference, None without variants."""
    name = study.methods[label].name
    variants = [other for other, method in study.methods.items() if method.name == name]
    if len(variants) == 1:
        return None
    return name if name in variants else variants[0]


def changes(study: Study, label: str, other: str) -> str:
    """Return the options and training settings in which a method differs from another of the same plugin."""
    values, reference_values = _settings(study, label), _settings(study, other)
    changed = [f"{key} {_text(value)}" for key, value in values.items() if value != reference_values[key]]
    return ", ".join(changed) or "nothing"


def _settings(study: Study, label: str) -> dict[str, Any]:
    method = study.methods[label]
    options = plugins.load("methods", method.name).Options(**method.options)
    training = study.training.model_dump() | dict(method.training)
    return {**options.model_dump(), **training, "teacher": method.teacher}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(study: Study, done: pd.DataFrame, network: str, label: str, other: str, percent: float) -> dict[str, Any]:
    ap, reference_ap = (fold_metrics(done, network, name, percent)["AP"] for name in (label, other))
    return {
        "network": network,
        "reference": other,
        "method": label,
        "changed": "" if label == other else changes(study, label, other),
        "percent": percent,
        "folds": len(ap),
        "AP": ap.mean(),
        "AP_std": ap.std(),
        "difference": math.nan if label == other else (ap - reference_ap).dropna().mean(),
    }


def _cell(row: Mapping[Any, Any]) -> str:
    text = mean_and_deviation(row["AP"], row["AP_std"])
    return text if math.isnan(row["difference"]) else f"{text} ({signed(row['difference'])})"
