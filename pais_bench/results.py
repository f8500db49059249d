"""What has been measured so far? The run folders of a study, as two frames; imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench import external, logs
from pais_bench.config import Run, Study, Weights, parse, suffix
from pais_bench.evaluation import protocols
from pais_bench.store import MANIFEST, Store, dataset_folder
from pais_bench.types import BenchError

KEYS = ("dataset", "family", "percent", "fold", "backend", "network", "method", "digest")
HARDWARE = ("device", "devices", "peak_memory_mib", "peak_device_memory_mib", "energy_kwh")
NUMBERS = ("segm_AP", "segm_AP50", "bbox_AP")
RUN_COLUMNS = (*KEYS, "folder", "state", "step", "model", "images", "wall_seconds", "commit", *HARDWARE, *NUMBERS)
CLASS_COLUMNS = (*KEYS, "class", "AP")
CURVE_COLUMNS = (*KEYS, "step", "seconds", "images_seen", "model", "AP", "AP50", "bbox_AP")
LOOK_MEANS = ("kept_per_image", "precision", "recall", "right_iou", "class_accuracy")
LOOK_ARRAYS = ("score_bins", "quality_bins", "sample")
LOOK_COLUMNS = (*KEYS, "step", "seconds", *LOOK_MEANS, *LOOK_ARRAYS)
EXTERNAL_COLUMNS = ("name", *KEYS[:-1], "folder", "state", "source", "images", *NUMBERS)
EXTERNAL_CLASS_COLUMNS = ("name", *KEYS[:-1], "class", "AP")
WEIGHT_COLUMNS = (*KEYS, "weights", "AP", "AP50", "bbox_AP")


@dataclass(frozen=True)
class Results:
    """Hold what a study has measured; every AP is a fraction 0..1, NaN where there is none.

    runs: one row per run of the grid, RUN_COLUMNS and a column PROTOCOL_NAME (segm_AP75) per number of an evaluator;
    state is done (evaluated), trained, started or missing | curves: one row per evaluation in a training's log and
    model (teacher, student), CURVE_COLUMNS | classes: one row per class of an evaluated run, CLASS_COLUMNS, mask AP |
    looks: one row per logged step whose pseudo-labels were read, LOOK_COLUMNS, arrays as logs.Log has them, None where
    the log has none | weights: one row per run and evaluated weights of the study, WEIGHT_COLUMNS | external: one row
    per predictions of another codebase, EXTERNAL_COLUMNS and the columns PROTOCOL_NAME | external_classes: their
    classes, EXTERNAL_CLASS_COLUMNS | root: the results folder | printed: the weights that runs and classes speak of.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    classes: pd.DataFrame
    looks: pd.DataFrame
    weights: pd.DataFrame
    external: pd.DataFrame
    external_classes: pd.DataFrame
    root: Path
    printed: Weights = "teacher-last"

    @staticmethod
    def of(study: Study, root: Path) -> Results:
        """Read every run of a study below the results folder, finished or not.

        A row's keys come from inside run.json; a folder without one (predictions of another codebase) has the grid's.
        Raises BenchError for a file that is broken, or that belongs to another run than its folder.
        """
        rows: list[dict[str, Any]] = []
        points: list[tuple[Any, ...]] = []
        classes: list[tuple[Any, ...]] = []
        looks: list[tuple[Any, ...]] = []
        weights: list[tuple[Any, ...]] = []
        printed = study.weights[0]
        metrics = f"metrics{suffix(printed)}.json"
        for asked in study.runs():
            folder = root / asked.folder
            described = _read(folder / "run.json", "run")
            run = asked if described is None else parse(Run, described["run"], str(folder / "run.json"))
            _check_digest(run.digest, asked, folder / "run.json")
            log, keys = logs.read(folder / "log.jsonl"), _keys(run)
            measured = _measured(run, described or {}, folder / metrics)
            rows.append({**keys, "folder": str(asked.folder), "step": log.step, **measured})
            classes.extend(_row(CLASS_COLUMNS, keys, one) for one in _classes(folder / metrics))
            weights.extend(_row(WEIGHT_COLUMNS, keys, one) for one in _weights(study, run, folder))
            points.extend(_row(CURVE_COLUMNS, keys, point) for point in _curve(log))
            looks.extend(_row(LOOK_COLUMNS, keys, look) for look in log.looks)
        others = [_external(one, study, root) for one in external.read_all(study)]
        told = [_row(EXTERNAL_CLASS_COLUMNS, other, one) for other, found in others for one in found]
        return Results(
            runs=_framed(rows, RUN_COLUMNS),
            curves=pd.DataFrame(points, columns=list(CURVE_COLUMNS)),
            classes=pd.DataFrame(classes, columns=list(CLASS_COLUMNS)),
            looks=pd.DataFrame(looks, columns=list(LOOK_COLUMNS)),
            weights=pd.DataFrame(weights, columns=list(WEIGHT_COLUMNS)),
            external=_framed([other for other, _ in others], EXTERNAL_COLUMNS),
            external_classes=pd.DataFrame(told, columns=list(EXTERNAL_CLASS_COLUMNS)),
            root=root,
            printed=printed,
        )

    def path(self, folder: str, stem: str = "predictions") -> Path:
        """Give a file of the printed weights of the run in a folder of `runs`, which may not be there (yet)."""
        return self.root / folder / f"{stem}{suffix(self.printed)}.json"

    def external_path(self, folder: str) -> Path:
        """Give the file of the predictions in a folder of `external`, which may not be there (yet)."""
        return self.root / folder / "predictions.json"

    def predictions(self, folder: str) -> list[dict[str, Any]] | None:
        """Read the COCO result records of the run in a folder of `runs`; None where there are none (yet)."""
        path = self.path(folder)
        return _parse(path.read_text(), str(path), list) if path.exists() else None

    def truth(self, study: Study) -> dict[str, Any] | None:
        """Read the COCO records of the validation images; None where the dataset is not prepared here."""
        store = self.validation(study)
        return None if store is None else store.coco_dict()

    def validation(self, study: Study) -> Store | None:
        """Open the validation part of the study's dataset; None where it is not prepared here."""
        folder = dataset_folder(self.root, study.dataset.label)
        return Store.open(folder, "val") if (folder / MANIFEST).exists() else None


def _keys(run: Run) -> dict[str, Any]:
    split, network = run.split, run.network
    values = (run.dataset, split.family, split.percent, split.fold, network.backend, network.label, run.method.label)
    return dict(zip(KEYS, (*values, run.digest), strict=True))


def _measured(run: Run, described: dict[str, Any], path: Path) -> dict[str, Any]:
    metrics = _read(path, "digest", "segm", "bbox")
    hardware = described.get("hardware", {})
    about = {
        **{key: hardware.get(key) if key == "device" else _number(hardware.get(key)) for key in HARDWARE},
        "state": _state(run, described, metrics is not None, path.with_name("log.jsonl").exists()),
        "wall_seconds": _number(described.get("wall_seconds")),
        "commit": described.get("commit"),
        **dict.fromkeys(NUMBERS, math.nan),
    }
    if metrics is None:
        return {**about, "model": None, "images": math.nan}
    _check_digest(metrics["digest"], run, path)
    return {**about, "model": metrics.get("model"), "images": _number(metrics.get("images")), **_numbers(metrics)}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Give every number of metrics.json under PROTOCOL_NAME."""
    measured = {kind: metrics[kind] for kind in protocols() if kind in metrics}
    return {f"{kind}_{name}": _number(value) for kind, one in measured.items() for name, value in one.items()}


def _external(one: external.External, study: Study, root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give the row of predictions of another codebase, and what it says of classes."""
    folder = one.folder(study.dataset.label)
    path = root / folder / "metrics.json"
    metrics = _read(path, "external", "segm", "bbox")
    if metrics is not None and metrics["external"] != one.told:
        raise BenchError(f"{path}: of another description; run `pais-bench import-predictions` again")
    keys = (study.dataset.label, one.split_family, one.percent, one.fold, "", one.network, one.method)
    state = "missing" if metrics is None else "done"
    told = {"name": one.name, "folder": str(folder), "state": state, "source": one.source}
    numbers = _numbers(metrics or {})
    row = {**dict(zip(KEYS[:-1], keys, strict=True)), **told, "images": (metrics or {}).get("images"), **numbers}
    return row, _classes(path)


def _row(columns: Sequence[str], keys: Mapping[str, Any], more: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give a row of a frame; of 600 runs they are 100,000, and so many dicts slow down the collection of garbage."""
    return tuple(more[name] if name in more else keys.get(name, math.nan) for name in columns)


def _framed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Give a frame of these columns, and behind them what else the rows have."""
    more = dict.fromkeys(name for row in rows for name in row if name not in columns)
    return pd.DataFrame(rows, columns=[*columns, *more])


def _classes(path: Path) -> list[dict[str, Any]]:
    metrics = _read(path) or {}
    return [{"class": name, "AP": _number(value)} for name, value in metrics.get("per_class", {}).items()]


def _weights(study: Study, run: Run, folder: Path) -> Iterator[dict[str, Any]]:
    """Give the numbers of all weights that are evaluated."""
    for weights in study.weights:
        path = folder / f"metrics{suffix(weights)}.json"
        metrics = _read(path, "digest", "segm", "bbox")
        if metrics is not None:
            _check_digest(metrics["digest"], run, path)
            numbers = {
                short: metrics[kind].get(key) for short, (kind, key) in zip(_SHORT, _SEGMENTS.values(), strict=True)
            }
            yield {"weights": weights, **{name: _number(value) for name, value in numbers.items()}}


def _state(run: Run, described: dict[str, Any], evaluated: bool, logged: bool) -> str:
    if evaluated:
        return "done"
    if described.get("steps", 0) >= run.training.steps:
        return "trained"
    return "started" if described or logged else "missing"


_SEGMENTS = {"segm_AP": ("segm", "AP"), "segm_AP50": ("segm", "AP50"), "bbox_AP": ("bbox", "AP")}


def _check_digest(found: str, run: Run, path: Path) -> None:
    if found != run.digest:
        raise BenchError(f"{path}: belongs to run {found}, not to {run.digest}; remove the file and make it again")


def _curve(log: logs.Log) -> Iterator[dict[str, Any]]:
    for line in log.evaluations:
        for model in ("teacher", "student"):
            if model in line:
                numbers = {short: _number(line[model].get(name)) for short, name in _SHORT.items()}
                yield {**{key: line.get(key) for key in ("step", "seconds", "images_seen")}, "model": model, **numbers}


_SHORT = {"AP": "segm_AP", "AP50": "segm_AP50", "bbox_AP": "bbox_AP"}


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """Give the content of a JSON file that has these keys; None where there is no file."""
    if not path.exists():
        return None
    content: dict[str, Any] = _parse(path.read_text(), str(path))
    for key in keys:
        if key not in content:
            raise BenchError(f"{path}: missing key '{key}'; remove the file and make it again")
    return content


def _parse(text: str, source: str, kind: type = dict) -> Any:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BenchError(f"{source}: not valid JSON ({error}); remove the file and make it again") from error
    if not isinstance(content, kind):
        what = "object" if kind is dict else "list"
        raise BenchError(f"{source}: not a JSON {what}; remove the file and make it again")
    return content


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
