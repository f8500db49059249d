"""Make image pools without a store: ids, file names, and classes from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pais_bench.annotations.store import Objects
from pais_bench.splits.family import ImagePool


def image_pool(
    ids: Sequence[int],
    classes: int = 0,
    empty: float = 0.0,
    name: Callable[[int], str] = "{}.jpg".format,
    seed: int = 0,
) -> ImagePool:
    """Return a pool whose images have class c with probability 1 / (c + 2), and no class with probability empty.

    The classes of an image depend on its index among the sorted ids, not on its index in the pool.
    """
    rng, sorted_ids = np.random.RandomState(seed), np.sort(np.asarray(ids, dtype=np.int64))
    has = rng.rand(len(sorted_ids), classes) < 1 / np.arange(2, classes + 2)
    has[rng.rand(len(sorted_ids)) < empty] = False
    rows, columns = np.nonzero(has)
    objects = Objects(sorted_ids[rows], columns + 1, np.zeros(len(rows), dtype=bool))
    return ImagePool(ids, name, lambda: objects)
