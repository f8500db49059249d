"""Define a split, the labelled images of a dataset with their label noise, and read and write it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError
from pais_bench.study.base import CompactConfig
from pais_bench.study.split import IMPORTED, LabelNoise, SplitChoice
from pais_bench.whole_file import write_text


class Split(CompactConfig):
    """Hold the labelled images of a dataset.

    ids are sorted | pool: the number of images they were drawn from | effective_percent: of the pool that is labelled |
    note: a warning for readers of the split | source_sha256: of the published file that was read | dropped: ids of the
    annotations that the label noise removed | flipped: new categories by annotation id | sha256: of the labels (see
    identity) | store: digest of the training set that the ids belong to.
    """

    dataset: str
    family: str
    percent: float
    effective_percent: float
    fold: int
    pool: int
    note: str | None = None
    source_sha256: str | None = None
    label_noise: LabelNoise | None = None
    dropped: tuple[int, ...] | None = None
    flipped: dict[int, int] | None = None
    ids: tuple[int, ...]
    sha256: str
    store: str

    @property
    def title(self) -> str:
        """Return the name of the split in messages."""
        return f"split {self.family} {self.percent:g} % fold {self.fold}"

    @property
    def description(self) -> str:
        """Return a line about the split for a person."""
        noise = f", {len(self.dropped or ())} instances dropped, {len(self.flipped or {})} flipped"
        note = f" ({self.note})" if self.note else ""
        return f"{len(self.ids)} of {self.pool} images labelled{noise if self.label_noise else ''}{note}"

    def summary(self) -> dict[str, Any]:
        """Return all fields as JSON values, with the number of ids instead of what sha256 identifies."""
        return {**self.model_dump(mode="json", exclude={"ids", "dropped", "flipped"}), "labelled": len(self.ids)}


def split_path(results: Path, dataset: str, choice: SplitChoice) -> Path:
    """Return the file of a split below the results folder."""
    return results / "splits" / dataset / choice.family / f"{choice.stem}.json"


def digest(ids: Sequence[int]) -> str:
    """Return the sha256 of the sorted ids, written as a JSON list."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def identity(split: Split) -> str:
    """Return the sha256 of the labels: of the ids, and with label noise also of label_noise, dropped and flipped."""
    if split.label_noise is None:
        return digest(split.ids)
    labels = split.model_dump(mode="json", include={"ids", "label_noise", "dropped", "flipped"})
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON."""
    write_text(path, json.dumps(split.model_dump(mode="json")) + "\n")


def read_split(path: Path) -> Split:
    """Read a split; raise BenchError if it is missing, not a split, or its ids do not have its sha256."""
    remedy = "remove it and run `pais-bench split` again"
    try:
        split = Split.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such split; run `pais-bench split` first") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: not a split; {remedy}") from error
    if identity(split) != split.sha256:
        raise BenchError(f"{path}: its {len(split.ids)} ids do not have the sha256 that it records; {remedy}")
    return split


def check_split(split: Split, store: Store, choice: SplitChoice) -> None:
    """Raise BenchError unless a split is the chosen one, drawn from the training set that the store holds."""
    actual = SplitChoice(**{key: getattr(split, key) for key in SplitChoice.model_fields})
    command = "import-split" if choice.family == IMPORTED else "split"
    if actual != choice:
        raise BenchError(
            f"{split.title}: its file holds {actual.model_dump_json()}, but the study asks for "
            f"{choice.model_dump_json()}; remove the file and run `pais-bench {command}` again"
        )
    if split.store != store.digest:
        raise BenchError(
            f"{split.title}: drawn from records {split.store[:8]} of '{split.dataset}', but the prepared ones are "
            f"{store.digest[:8]}; run `pais-bench {command}` again"
        )


def images_with_objects(split: Split, store: Store, with_stuff: bool = True) -> tuple[int, ...]:
    """Return the ids of the labelled images that have an object, no crowd region, which label noise left them.

    Without stuff a region of stuff is no object.
    """
    objects, dropped = store.objects(), set(split.dropped or ())
    learnt = [*store.label_of] if with_stuff else store.thing_ids
    with_objects = set(objects.image_id[~objects.crowd & np.isin(objects.category_id, learnt)].tolist())
    if dropped:
        kept = [ann for image_id in split.ids for ann in store.annotations(image_id) if ann["id"] not in dropped]
        with_objects = {ann["image_id"] for ann in kept if not ann["iscrowd"] and ann["category_id"] in learnt}
    return tuple(image_id for image_id in split.ids if image_id in with_objects)


def require_objects(split: Split, store: Store) -> None:
    """Raise BenchError where no labelled image has an object to learn from."""
    objects = store.objects()
    labelled = np.isin(objects.image_id, split.ids)
    if (labelled & ~objects.crowd).sum() <= len(split.dropped or ()):
        noise = f", {len(split.dropped)} lost to label noise" if split.dropped else ""
        raise BenchError(
            f"{split.title}: its {len(split.ids)} labelled images have no object to learn from "
            f"({int((labelled & objects.crowd).sum())} crowd regions{noise}); choose a larger percent or another fold"
        )
