"""Read the analyses of the errors of a study's evaluated predictions, the same ones for every table of errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pais_bench.annotations.store import Store
from pais_bench.errors import NothingToShow
from pais_bench.evaluation.error_cache import ErrorAnalysis
from pais_bench.reports.external_rows import external_labels
from pais_bench.reports.results import Results
from pais_bench.runs.files import metrics_file, predictions_file
from pais_bench.study.run import ModelCheckpoint, suffix
from pais_bench.study.study import Study

MISSING = "no evaluated predictions are here"


@dataclass(frozen=True)
class Analysed:
    """Hold the analysis of one file of predictions, as coco/errors.py describes it.

    checkpoint is empty for predictions of another codebase.
    """

    network: str
    percent: float
    method: str
    fold: int
    checkpoint: str
    content: dict[str, Any]


def require_store(study: Study, results: Results) -> Store:
    """Return the validation subset; raise NothingToShow where it is not prepared here."""
    store = results.validation(study)
    if store is None:
        raise NothingToShow(f"the dataset '{study.dataset.label}' is not prepared here")
    return store


def evaluated(results: Results) -> pd.DataFrame:
    """Return the finished runs, then the predictions of other codebases, of any splits, under their labels.

    The column external tells them apart.
    """
    own = results.runs.assign(external=False)
    others = results.external.assign(method=external_labels(results, results.external), external=True)
    both = pd.concat([own, others], ignore_index=True) if len(others) else own
    return both[both["state"] == "done"]


def analyses(results: Results, store: Store, checkpoints: Sequence[ModelCheckpoint] = ()) -> Iterator[Analysed]:
    """Yield the analysis of all evaluated() whose predictions are here, of runs by default of the printed checkpoint.

    Read from errors.json; computed where that is of other content.
    """
    cache = ErrorAnalysis(store)
    for _, row in evaluated(results).iterrows():
        folder, external = results.root / row["folder"], bool(row["external"])
        ends = {"": ""} if external else {name: suffix(name) for name in checkpoints or (results.printed,)}
        for checkpoint, end in ends.items():
            predictions = folder / predictions_file(end)
            if predictions.exists() and (folder / metrics_file(end)).exists():
                cell = row["network"], float(row["percent"]), row["method"], int(row["fold"])
                yield Analysed(*cell, checkpoint, cache.content(predictions))


def axes(study: Study, frame: pd.DataFrame) -> tuple[list[str], list[float], list[str]]:
    """Return networks, percents and methods: those of the study, then others that a frame has of another codebase."""
    own = {"network": study.networks, "percent": study.split.percents, "method": study.methods}
    networks, percents, methods = (
        list(dict.fromkeys([*labels, *frame[name].unique()])) for name, labels in own.items()
    )
    return networks, percents, methods
