"""Read the run folders of a study into data frames."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import MANIFEST, Store, dataset_folder
from pais_bench.errors import BenchError
from pais_bench.evaluation.evaluate import protocols
from pais_bench.reports import external, training_log
from pais_bench.runs import trained_data
from pais_bench.runs.files import LOG, RUN, metrics_file, predictions_file
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run, suffix
from pais_bench.study.study import Study

KEYS = ("dataset", "family", "percent", "fold", "backend", "network", "method", "digest")
HARDWARE = ("device", "devices", "peak_memory_mib", "peak_device_memory_mib")
NUMBERS = ("segm_AP", "segm_AP50", "bbox_AP")
BURN_IN = ("begun_with", "burn_in_seconds")
OF_RUN = ("folder", "state", "step", "model", "images", "wall_seconds", "commit")
RUN_COLUMNS = (*KEYS, *OF_RUN, *BURN_IN, *HARDWARE, *NUMBERS)
CLASS_COLUMNS = (*KEYS, "class", "AP")
PANOPTIC_CLASS_COLUMNS = (*KEYS, "class", "PQ")
CURVE_COLUMNS = (*KEYS, "step", "seconds", "images_seen", "model", "AP", "AP50", "bbox_AP")
PSEUDO_LABEL_MEANS = ("kept_per_image", "precision", "recall", "matched_iou", "class_accuracy")
PSEUDO_LABEL_ARRAYS = ("score_bins", "mask_iou_bins", "sample")
PSEUDO_LABEL_COLUMNS = (*KEYS, "step", "seconds", *PSEUDO_LABEL_MEANS, *PSEUDO_LABEL_ARRAYS)
EXTERNAL_COLUMNS = ("name", *KEYS[:-1], "folder", "state", "source", "images", *NUMBERS)
EXTERNAL_CLASS_COLUMNS = ("name", *KEYS[:-1], "class", "AP")
CHECKPOINT_COLUMNS = (*KEYS, "checkpoint", "AP", "AP50", "bbox_AP")


@dataclass(frozen=True)
class Results:
    """Hold what a study has measured; every AP is a fraction 0..1, NaN where there is none.

    runs: one row per run of the grid, RUN_COLUMNS and a column PROTOCOL_NAME (segm_AP75) per number of an evaluator;
    state is done (evaluated), trained, started or missing; begun_with is the folder of a shared burn-in, or empty, and
    burn_in_seconds its part of wall_seconds | curves: one row per evaluation in a training's log and
    model (teacher, student), CURVE_COLUMNS | classes: one row per class of an evaluated run, CLASS_COLUMNS, mask AP |
    panoptic_classes: the same with PQ, PANOPTIC_CLASS_COLUMNS, stuff too, of runs that have it |
    pseudo_label_log: one row per logged step whose pseudo-labels were read, PSEUDO_LABEL_COLUMNS, arrays as in
    TrainingLog, NaN where the log has none | checkpoints: one row per run and evaluated checkpoint of the study,
    CHECKPOINT_COLUMNS | external: one row per predictions of another codebase, EXTERNAL_COLUMNS and the columns
    PROTOCOL_NAME | external_classes: their classes, EXTERNAL_CLASS_COLUMNS | root: the results folder | printed: the
    checkpoint of runs and classes.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    classes: pd.DataFrame
    panoptic_classes: pd.DataFrame
    pseudo_label_log: pd.DataFrame
    checkpoints: pd.DataFrame
    external: pd.DataFrame
    external_classes: pd.DataFrame
    root: Path
    printed: ModelCheckpoint = "teacher-last"

    @staticmethod
    def of(study: Study, root: Path) -> Results:
        """Read every run of a study below the results folder, finished or not.

        A row's keys come from run.json; a folder without one has the grid's. Of a run on other data than the prepared
        one that counts which is kept of the prepared one; without it the run is missing. Raises BenchError for a file
        that is broken or belongs to another run than its folder, and for predictions of another codebase on other data.
        """
        rows: list[dict[str, Any]] = []
        points: list[tuple[Any, ...]] = []
        classes: list[tuple[Any, ...]] = []
        panoptic_classes: list[tuple[Any, ...]] = []
        pseudo_label_log: list[tuple[Any, ...]] = []
        checkpoints: list[tuple[Any, ...]] = []
        printed = study.checkpoints[0]
        metrics = metrics_file(suffix(printed))
        data = read_content(dataset_folder(root, study.dataset.label))
        for expected in study.runs():
            folder = trained_data.of_content(root / expected.folder, data)
            content = _read(folder / RUN, "run")
            run = expected if content is None else parse(Run, content["run"], str(folder / RUN))
            _check_digest(run.digest, expected, folder / RUN)
            log, keys = training_log.read(folder / LOG), _keys(run)
            values = _values(run, content or {}, folder / metrics, study.metrics) | _burn_in(root, content or {})
            rows.append({**keys, "folder": str(folder.relative_to(root)), "step": log.step, **values})
            classes.extend(_row(CLASS_COLUMNS, keys, ap) for ap in _classes(folder / metrics))
            by_class = _classes(folder / metrics, "panoptic_per_class", "PQ")
            panoptic_classes.extend(_row(PANOPTIC_CLASS_COLUMNS, keys, pq) for pq in by_class)
            checkpoints.extend(_row(CHECKPOINT_COLUMNS, keys, ap) for ap in _checkpoints(study, run, folder))
            points.extend(_row(CURVE_COLUMNS, keys, point) for point in _curve(log))
            pseudo_label_log.extend(_row(PSEUDO_LABEL_COLUMNS, keys, step) for step in log.pseudo_labels)
        others = [_external(description, study, root, data) for description in external.read_all(study)]
        other_classes = [_row(EXTERNAL_CLASS_COLUMNS, row, ap) for row, by_class in others for ap in by_class]
        return Results(
            runs=_frame(rows, RUN_COLUMNS),
            curves=pd.DataFrame(points, columns=list(CURVE_COLUMNS)),
            classes=pd.DataFrame(classes, columns=list(CLASS_COLUMNS)),
            panoptic_classes=pd.DataFrame(panoptic_classes, columns=list(PANOPTIC_CLASS_COLUMNS)),
            pseudo_label_log=pd.DataFrame(pseudo_label_log, columns=list(PSEUDO_LABEL_COLUMNS)),
            checkpoints=pd.DataFrame(checkpoints, columns=list(CHECKPOINT_COLUMNS)),
            external=_frame([row for row, _ in others], EXTERNAL_COLUMNS),
            external_classes=pd.DataFrame(other_classes, columns=list(EXTERNAL_CLASS_COLUMNS)),
            root=root,
            printed=printed,
        )

    def path(self, folder: str, file: Callable[[str], str] = predictions_file) -> Path:
        """Return the path of a file of a run's printed checkpoint, which may not exist yet; folder is its in `runs`."""
        return self.root / folder / file(suffix(self.printed))

    def external_path(self, folder: str) -> Path:
        """Return the path of the predictions in a folder of `external`, which may not exist yet."""
        return self.root / folder / predictions_file()

    def validation(self, study: Study) -> Store | None:
        """Open the validation subset of the study's dataset; return None where it is not prepared here."""
        folder = dataset_folder(self.root, study.dataset.label)
        return Store.open(folder, "val") if (folder / MANIFEST).exists() else None


def _keys(run: Run) -> dict[str, Any]:
    split, network = run.split, run.network
    values = (run.dataset, split.family, split.percent, split.fold, network.backend, network.label, run.method.label)
    return dict(zip(KEYS, (*values, run.digest), strict=True))


def _values(run: Run, content: dict[str, Any], path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    metrics = _read(path, "digest", "segm", "bbox")
    hardware = content.get("hardware", {})
    values = {
        **{key: hardware.get(key) if key == "device" else _number(hardware.get(key)) for key in HARDWARE},
        "state": _state(run, content, metrics is not None, path.with_name(LOG).exists()),
        "wall_seconds": _number(content.get("wall_seconds")),
        "commit": content.get("commit"),
        **dict.fromkeys(NUMBERS, math.nan),
    }
    if metrics is None:
        return {**values, "model": None, "images": math.nan}
    _check_digest(metrics["digest"], run, path)
    values |= {"model": metrics.get("model"), "images": _number(metrics.get("images"))}
    return {**values, **_numbers(metrics, needed)}


def _burn_in(root: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return which burn-in a run began with and its time, 0 where its folder was removed."""
    folder = content.get("begun_with") or ""
    shared = (_read(root / folder / RUN) or {}) if folder else {}
    return {"begun_with": folder, "burn_in_seconds": float(shared.get("wall_seconds") or 0)}


def _numbers(metrics: Mapping[str, Any], needed: tuple[str, ...]) -> dict[str, float]:
    """Return every number of metrics.json under PROTOCOL_NAME; needed: the metrics of the study."""
    present = [kind for kind in protocols(needed) if kind in metrics]
    return {f"{kind}_{name}": _number(value) for kind in present for name, value in metrics[kind].items()}


def _external(
    description: external.External, study: Study, root: Path, data: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of predictions of another codebase, and the AP of each class."""
    folder = description.folder(study.dataset.label)
    path = root / folder / metrics_file()
    metrics = _read(path, "external", "segm", "bbox")
    if metrics is not None and metrics["external"] != description.description:
        raise BenchError(f"{path}: of another description; run `pais-bench import-predictions` again")
    if metrics is not None and data is not None and metrics.get("data", data) != data:
        raise BenchError(f"{path}: of other data than the prepared one; run `pais-bench import-predictions` again")
    split = (description.split_family, description.percent, description.fold)
    keys = (study.dataset.label, *split, "", description.network, description.method)
    state = "missing" if metrics is None else "done"
    row: dict[str, Any] = {
        "name": description.name,
        "folder": str(folder),
        "state": state,
        "source": description.source,
    }
    row |= {**dict(zip(KEYS[:-1], keys, strict=True)), "images": (metrics or {}).get("images")}
    return {**row, **_numbers(metrics or {}, study.metrics)}, _classes(path)


def _row(columns: Sequence[str], keys: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a row of a frame as a tuple: 600 runs have 100,000, and so many dicts slow down garbage collection."""
    return tuple(values[name] if name in values else keys.get(name, math.nan) for name in columns)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return a frame of these columns, followed by any others that the rows have."""
    others = dict.fromkeys(name for row in rows for name in row if name not in columns)
    return pd.DataFrame(rows, columns=[*columns, *others])


def _classes(path: Path, key: str = "per_class", number: str = "AP") -> list[dict[str, Any]]:
    """Return the number of each class in a metrics.json."""
    metrics = _read(path) or {}
    return [{"class": name, number: _number(value)} for name, value in metrics.get(key, {}).items()]


def _checkpoints(study: Study, run: Run, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the numbers of every evaluated checkpoint."""
    for checkpoint in study.checkpoints:
        path = folder / metrics_file(suffix(checkpoint))
        metrics = _read(path, "digest", "segm", "bbox")
        if metrics is not None:
            _check_digest(metrics["digest"], run, path)
            numbers = {name: _number(metrics[kind].get(key)) for name, (kind, key) in _SHORT.items()}
            yield {"checkpoint": checkpoint, **numbers}


def _state(run: Run, content: dict[str, Any], evaluated: bool, logged: bool) -> str:
    if evaluated:
        return "done"
    if content.get("steps", 0) >= run.training.steps:
        return "trained"
    return "started" if content or logged else "missing"


def _check_digest(digest: str, run: Run, path: Path) -> None:
    if digest != run.digest:
        raise BenchError(f"{path}: belongs to run {digest}, not to {run.digest}; remove the file and make it again")


def _curve(log: training_log.TrainingLog) -> Iterator[dict[str, Any]]:
    for line in log.evaluations:
        for model in ("teacher", "student"):
            if model in line:
                numbers = {name: _number(line[model].get(f"{kind}_{key}")) for name, (kind, key) in _SHORT.items()}
                yield {**{key: line.get(key) for key in ("step", "seconds", "images_seen")}, "model": model, **numbers}


_SHORT = {"AP": ("segm", "AP"), "AP50": ("segm", "AP50"), "bbox_AP": ("bbox", "AP")}


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return the content of a JSON file that has these keys; None where there is no file."""
    if not path.exists():
        return None
    remedy = "remove the file and make it again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path}: not a JSON object; {remedy}")
    for key in keys:
        if key not in content:
            raise BenchError(f"{path}: missing key '{key}'; {remedy}")
    return content


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
