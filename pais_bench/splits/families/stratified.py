"""Draw a stratified split for new data: every class is represented in proportion from the first percent on.

A fold is an order of all images: percent p labels its first int(p / 100 * N) images, so the percents are nested. The
order is greedy, in the manner of iterative stratification (Sechidis, Tsoumakas and Vlahavas: On the stratification of
multi-label data, ECML PKDD 2011): the n-th image with a class that m of N images have is due at position
(n - 1/2) N / m; of the next images of the class that is due first, the one that is least ahead of its classes is taken.
Classes without an image come first, the rarest before the others; images without annotations count as a class that
does not come first. The order depends on ids, classes and fold, and not on the order of the annotation file. The
arithmetic is in integers, so that the order is the same on every machine.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = ""
CANDIDATES = 32
"""Images that are compared for one position."""
UNIT = 1024
"""Fixed-point units of a position."""


def draw(pool: ImagePool, percent: float, fold: int, source: Path | None) -> LabelledSet:
    """Take the first images of the fold's order."""
    ids = np.sort(np.asarray(pool.ids, dtype=np.int64))
    order = _order(_classes(pool, ids), int(percent / 100.0 * len(ids)), fold)
    return LabelledSet(ids[order].tolist(), len(ids))


def _classes(pool: ImagePool, ids: np.ndarray) -> np.ndarray:
    """Return whether an image has a class, bool[N,C+1]; the last column marks images without annotations."""
    objects = pool.objects()
    no_crowd = ~objects.crowd
    classes, column = np.unique(objects.category_id[no_crowd], return_inverse=True)
    has = np.zeros((len(ids), len(classes) + 1), dtype=bool)
    has[np.searchsorted(ids, objects.image_id[no_crowd]), column] = True
    has[:, -1] = ~has.any(1)
    return has


def _order(has: np.ndarray, count: int, fold: int) -> list[int]:
    """Return the rows of the first count images."""
    images = len(has)
    shuffled = np.random.RandomState(fold).permutation(images)
    total = has.sum(0, dtype=np.int64)
    waiting = [deque(shuffled[has[shuffled, column]].tolist()) for column in range(has.shape[1])]
    never = UNIT * images * (2 * images + 1)
    total_or_one = np.maximum(total, 1)
    due = np.where(total > 0, -UNIT * images // total_or_one, never)
    due[-1] = UNIT * images // (2 * total_or_one[-1]) if total[-1] else never
    served, used, order = np.zeros_like(total), np.zeros(images, dtype=bool), []
    for position in range(count):
        candidates = _next_unused(waiting[int(due.argmin())], used)
        ahead = has[candidates].astype(np.int64) @ (due - UNIT * (position + 1))
        image = candidates[int(ahead.argmin())]
        order.append(image)
        used[image] = True
        served += has[image]
        later = UNIT * images * (2 * served + 1) // (2 * total_or_one)
        due = np.where(has[image], np.where(served < total, later, never), due)
    return order


def _next_unused(waiting: deque[int], used: np.ndarray) -> list[int]:
    """Return the next unused images of a class, and move them to its end."""
    images: list[int] = []
    for _ in range(len(waiting)):
        image = waiting.popleft()
        if not used[image]:
            images.append(image)
            if len(images) == CANDIDATES:
                break
    waiting.extend(images)
    return images
