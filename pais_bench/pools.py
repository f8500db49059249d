"""What may a split family look at, and what does it answer?

A family is a module of families/ with a function and a constant:

    draw(pool, percent, fold, source) -> Drawn     source is the file or folder that the user names
    SOURCE: str                                    what that is; empty where nothing is read, and source is None
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pais_bench.store import Objects, Store
from pais_bench.types import BenchError


@dataclass(frozen=True)
class Pool:
    """Hold the train part as a family sees it.

    ids are in the order of the annotation file | name gives an image's file name without its folders | objects gives
    the annotations as columns.
    """

    ids: Sequence[int]
    name: Callable[[int], str]
    objects: Callable[[], Objects]

    @staticmethod
    def of(store: Store) -> Pool:
        """Give the pool of a store."""
        return Pool(store.image_ids, lambda number: store.path(number).name, store.objects)


@dataclass(frozen=True)
class Drawn:
    """Hold labelled ids in the order drawn, and of how many images they are.

    note warns of what a reader would not expect | source_sha256 is that of the published file that was read.
    """

    ids: Sequence[int]
    pool: int
    note: str | None = None
    source_sha256: str | None = None


def read_published(path: Path, sha256: str, what: str) -> bytes:
    """Read a published file; raise BenchError where it is missing, or is not the one of this sha256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); let split.source name {what}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BenchError(
            f"{path}: not the published file (sha256 {found[:8]}…{found[-5:]} instead of {sha256[:8]}…{sha256[-5:]}); "
            f"let split.source name {what}"
        )
    return content
