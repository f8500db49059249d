"""Which images are labelled? The answer has an identity: the ids, the pool they were drawn from, and a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pais_bench.config import Frozen, SplitChoice
from pais_bench.store import Store, write_text
from pais_bench.types import BenchError


class Split(Frozen):
    """Hold the labelled images of a dataset.

    ids are sorted | pool is the number of images they were drawn from | effective_percent is what ids are of it |
    sha256 is that of json.dumps(ids) | store is the digest of the train part that the ids belong to.
    """

    dataset: str
    family: str
    percent: float
    effective_percent: float
    fold: int
    pool: int
    ids: tuple[int, ...]
    sha256: str
    store: str

    def summary(self) -> dict[str, Any]:
        """Give the number of ids instead of the ids, which sha256 stands for."""
        return {**self.model_dump(mode="json", exclude={"ids"}), "labelled": len(self.ids)}


def soft_teacher(ids: Sequence[int], percent: float, fold: int) -> list[int]:
    """Draw int(percent / 100 * N) of N images without replacement.

    Source: Soft Teacher's and PAIS's tools/dataset/semi_coco.py without its seed offset; Noisy Boundaries' Cityscapes
    script, which shuffles instead, draws the same images. Images without annotations belong to the pool.
    """
    count = int(percent / 100.0 * len(ids))
    drawn = np.random.RandomState(fold).choice(len(ids), size=count, replace=False)
    return [ids[position] for position in drawn]


FAMILIES: dict[str, Callable[[Sequence[int], float, int], list[int]]] = {"soft_teacher": soft_teacher}


def draw(family: str, ids: Sequence[int], percent: float, fold: int) -> list[int]:
    """Give the labelled ids in the order drawn, from a pool of ids in the order of the annotation file.

    Raises BenchError for an unknown family and for a split without an image.
    """
    if family not in FAMILIES:
        raise BenchError(f"split.family: there is no '{family}'; choose one of {', '.join(FAMILIES)}")
    drawn = FAMILIES[family](ids, percent, fold)
    if not drawn:
        remedy = (
            f"the smallest percent that gives one is {_smallest_percent(len(ids))}" if ids else "prepare some images"
        )
        raise BenchError(f"split: {percent:g} % of a pool of {len(ids)} images is no image; {remedy}")
    return drawn


def draw_split(store: Store, dataset: str, choice: SplitChoice) -> Split:
    """Draw a split from the train part of a dataset."""
    ids = sorted(draw(choice.family, store.image_ids, choice.percent, choice.fold))
    return Split(
        dataset=dataset,
        family=choice.family,
        percent=choice.percent,
        effective_percent=100 * len(ids) / len(store.image_ids),
        fold=choice.fold,
        pool=len(store.image_ids),
        ids=tuple(ids),
        sha256=digest(ids),
        store=store.digest,
    )


def digest(ids: Sequence[int]) -> str:
    """Give the sha256 of the sorted ids, written as a JSON list."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON."""
    write_text(path, json.dumps(split.model_dump(mode="json")) + "\n")


def read_split(path: Path) -> Split:
    """Read a split; raise BenchError where it is missing, not a split, or its ids are not the ones that were drawn."""
    remedy = "remove it and run `pais-bench split` again"
    try:
        split = Split.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such split; run `pais-bench split` first") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: not a split; {remedy}") from error
    if digest(split.ids) != split.sha256:
        raise BenchError(f"{path}: its {len(split.ids)} ids do not have the sha256 that it tells; {remedy}")
    return split


def check_split(split: Split, store: Store) -> None:
    """Raise BenchError unless a split was drawn from the train part that the store holds."""
    if split.store != store.digest:
        raise BenchError(
            f"split {split.family} {split.percent:g} % fold {split.fold}: drawn from records {split.store[:8]} of "
            f"'{split.dataset}', but the prepared ones are {store.digest[:8]}; run `pais-bench split` again"
        )


def _smallest_percent(pool: int) -> str:
    """Give the smallest percent of two digits that is at least one image of the pool."""
    unit = 10.0 ** (math.floor(math.log10(100 / pool)) - 1)
    steps = math.floor(100 / pool / unit)
    while int(float(f"{steps * unit:.2g}") / 100.0 * pool) < 1:
        steps += 1
    return f"{steps * unit:.2g}"
