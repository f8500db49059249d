"""Which images are labelled? The answer has an identity: the ids, the pool they were drawn from, and a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pais_bench import corruptions, plugins
from pais_bench.frozen import Sparse
from pais_bench.pools import Drawn, Pool
from pais_bench.split_choice import Corruption, SplitChoice
from pais_bench.store import Store, write_text
from pais_bench.types import BenchError


class Split(Sparse):
    """Hold the labelled images of a dataset.

    ids are sorted | pool is the number of images they were drawn from | effective_percent is what ids are of it |
    note warns of what a reader would not expect | source_sha256 is that of the published file that was read | dropped
    are the ids of the annotations that a corruption removed, flipped takes others to their new category | sha256 is
    that of json.dumps(ids), or of a list of ids, corruption, dropped and flipped | store is the digest of the train
    part that the ids belong to.
    """

    dataset: str
    family: str
    percent: float
    effective_percent: float
    fold: int
    pool: int
    note: str | None = None
    source_sha256: str | None = None
    corruption: Corruption | None = None
    dropped: tuple[int, ...] | None = None
    flipped: dict[int, int] | None = None
    ids: tuple[int, ...]
    sha256: str
    store: str

    @property
    def told(self) -> str:
        """Give a line for a person."""
        spoilt = f", {len(self.dropped or ())} instances dropped, {len(self.flipped or {})} flipped"
        note = f" ({self.note})" if self.note else ""
        return f"{len(self.ids)} of {self.pool} images labelled{spoilt if self.corruption else ''}{note}"

    def summary(self) -> dict[str, Any]:
        """Give the number of ids instead of what sha256 stands for."""
        return {**self.model_dump(mode="json", exclude={"ids", "dropped", "flipped"}), "labelled": len(self.ids)}


def draw(family: str, pool: Pool, percent: float, fold: int, source: Path | None = None) -> Drawn:
    """Give the labelled ids in the order drawn.

    Raises BenchError for an unknown family, a file that it needs or does not read, and a split without an image.
    """
    try:
        plugin = plugins.load("families", family)
    except BenchError as error:
        raise BenchError(f"split.family: {error}") from error
    if plugin.SOURCE and source is None:
        raise BenchError(f"split.source: missing; family '{family}' needs {plugin.SOURCE}")
    if source is not None and not plugin.SOURCE:
        raise BenchError(f"split.source: family '{family}' reads no file; remove the key")
    drawn: Drawn = plugin.draw(pool, percent, fold, source)
    if not drawn.ids:
        remedy = (
            f"the smallest percent that gives one is {_smallest_percent(drawn.pool)}"
            if drawn.pool
            else "prepare some images"
        )
        raise BenchError(f"split: {percent:g} % of a pool of {drawn.pool} images is no image; {remedy}")
    return drawn


def draw_split(store: Store, dataset: str, choice: SplitChoice, source: Path | None = None) -> Split:
    """Draw a split from the train part of a dataset."""
    drawn = draw(choice.family, Pool.of(store), choice.percent, choice.fold, source)
    return make_split(store, dataset, choice, drawn)


def make_split(store: Store, dataset: str, choice: SplitChoice, drawn: Drawn) -> Split:
    """Spoil what was drawn where that is chosen, and describe it."""
    ids, spoilt = sorted(drawn.ids), None
    if choice.corruption:
        spoilt = corruptions.spoil(choice.corruption, ids, store)
        ids = spoilt.ids
    split = Split(
        dataset=dataset,
        family=choice.family,
        percent=choice.percent,
        effective_percent=100 * len(ids) / drawn.pool,
        fold=choice.fold,
        pool=drawn.pool,
        note=drawn.note,
        source_sha256=drawn.source_sha256,
        corruption=choice.corruption,
        dropped=tuple(spoilt.dropped) if spoilt else None,
        flipped=spoilt.flipped if spoilt else None,
        ids=tuple(ids),
        sha256="",
        store=store.digest,
    )
    return split.model_copy(update={"sha256": identity(split)})


def split_path(results: Path, dataset: str, choice: SplitChoice) -> Path:
    """Give the file of a split below the results folder."""
    return results / "splits" / dataset / choice.family / f"{choice.stem}.json"


def digest(ids: Sequence[int]) -> str:
    """Give the sha256 of the sorted ids, written as a JSON list."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def identity(split: Split) -> str:
    """Give the sha256 of the labels: of the ids alone, unless they are spoilt."""
    if split.corruption is None:
        return digest(split.ids)
    told = split.model_dump(mode="json", include={"ids", "corruption", "dropped", "flipped"})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


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
    if identity(split) != split.sha256:
        raise BenchError(f"{path}: its {len(split.ids)} ids do not have the sha256 that it tells; {remedy}")
    return split


def check_split(split: Split, store: Store, choice: SplitChoice) -> None:
    """Raise BenchError unless a split is the chosen one, drawn from the train part that the store holds."""
    found = SplitChoice(**{key: getattr(split, key) for key in SplitChoice.model_fields})
    if found != choice:
        raise BenchError(
            f"split {split.family} {split.percent:g} % fold {split.fold}: its file holds {found.model_dump_json()}, "
            f"but the study asks for {choice.model_dump_json()}; remove the file and run `pais-bench split` again"
        )
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
