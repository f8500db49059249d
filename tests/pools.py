"""Give pools without a store: ids, file names, and classes drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pais_bench.pools import Pool
from pais_bench.store import Objects


def pool(
    ids: Sequence[int],
    classes: int = 0,
    empty: float = 0.0,
    name: Callable[[int], str] = "{}.jpg".format,
    seed: int = 0,
) -> Pool:
    """Give a pool whose class c is on an image with probability 1 / (c + 2); empty is the share of bare images.

    The classes of an image depend on its place among the sorted ids, not on its place in the pool.
    """
    rng, known = np.random.RandomState(seed), np.sort(np.asarray(ids, dtype=np.int64))
    has = rng.rand(len(known), classes) < 1 / np.arange(2, classes + 2)
    has[rng.rand(len(known)) < empty] = False
    rows, columns = np.nonzero(has)
    objects = Objects(known[rows], columns + 1, np.zeros(len(rows), dtype=bool))
    return Pool(ids, name, lambda: objects)
