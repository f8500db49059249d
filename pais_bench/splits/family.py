"""Define the interface of split families.

A family is a module of families/ with a function and a constant:

    draw(pool, percent, fold, source) -> LabelledSet     source: the published file or folder that the user names
    SOURCE: str                                          description of source; empty if source is None
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pais_bench.annotations.store import Objects, Store
from pais_bench.errors import BenchError


@dataclass(frozen=True)
class ImagePool:
    """Hold the training set as a family sees it.

    ids are in the order of the annotation file | name returns an image's file name without folders | objects returns
    the annotations as columns.
    """

    ids: Sequence[int]
    name: Callable[[int], str]
    objects: Callable[[], Objects]

    @staticmethod
    def of(store: Store) -> ImagePool:
        """Return the image pool of a store."""
        return ImagePool(store.image_ids, lambda number: store.path(number).name, store.objects)


@dataclass(frozen=True)
class LabelledSet:
    """Hold labelled ids in the order drawn, and the size of the pool that they were drawn from.

    note: a warning for readers of the split | source_sha256: of the published file that was read.
    """

    ids: Sequence[int]
    pool: int
    note: str | None = None
    source_sha256: str | None = None


def read_published(path: Path, sha256: str, what: str) -> bytes:
    """Read a published file; raise BenchError if it is missing or has another sha256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); let split.source name {what}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise BenchError(
            f"{path}: not the published file (sha256 {actual[:8]}…{actual[-5:]} instead of "
            f"{sha256[:8]}…{sha256[-5:]}); let split.source name {what}"
        )
    return content


def listed_ids(path: Path, listed: Sequence[str], ids: Mapping[str, int], complete: str) -> list[int]:
    """Return the ids of the images that a published list at path names; raise BenchError where ids lacks some.

    ids maps the names of the dataset's images, as lists have them, to their ids | complete: how to prepare all of them.
    """
    missing = [name for name in listed if name not in ids]
    if missing:
        raise BenchError(
            f"{path}: {len(missing)} of its {len(listed)} images are not in this dataset, the first: {missing[0]}; "
            f"choose another family, or {complete}"
        )
    return [ids[name] for name in listed]
