"""Which images should new data label? Those with which every class has its share from the first percent on.

One order of all images for a fold: percent p labels its first int(p / 100 * N) images, so the percents are nested. The
order is greedy, in the manner of iterative stratification (Sechidis, Tsoumakas and Vlahavas: On the stratification of
multi-label data, ECML PKDD 2011): the n-th image with a class that m of N images have is due at place (n - 1/2) N / m;
the class that is due first is served, by that of its next images that is the least ahead of its classes. A class that
has no image yet goes first, the rarest of all before; images without annotations are a class that does not. The order
depends on ids, classes and fold, and not on the order of the annotation file. All of it is integer arithmetic, so that
it is the same on every machine.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from pais_bench.pools import Drawn, Pool

SOURCE = ""
TRIED = 32
"""Images that are compared for one place."""
UNIT = 1024
"""Parts of a place in which it is counted."""


def draw(pool: Pool, percent: float, fold: int, source: Path | None) -> Drawn:
    """Take the first of the fold's order."""
    ids = np.sort(np.asarray(pool.ids, dtype=np.int64))
    order = _order(_classes(pool, ids), int(percent / 100.0 * len(ids)), fold)
    return Drawn(ids[order].tolist(), len(ids))


def _classes(pool: Pool, ids: np.ndarray) -> np.ndarray:
    """Give whether an image has a class, bool[N,C+1]; the last column has those without annotations."""
    objects = pool.objects()
    counted = ~objects.crowd
    classes, column = np.unique(objects.category_id[counted], return_inverse=True)
    has = np.zeros((len(ids), len(classes) + 1), dtype=bool)
    has[np.searchsorted(ids, objects.image_id[counted]), column] = True
    has[:, -1] = ~has.any(1)
    return has


def _order(has: np.ndarray, count: int, fold: int) -> list[int]:
    """Give the rows of the first count images."""
    images = len(has)
    shuffled = np.random.RandomState(fold).permutation(images)
    total = has.sum(0, dtype=np.int64)
    waiting = [deque(shuffled[has[shuffled, column]].tolist()) for column in range(has.shape[1])]
    never = UNIT * images * (2 * images + 1)
    total_or_one = np.maximum(total, 1)
    due = np.where(total > 0, -UNIT * images // total_or_one, never)
    due[-1] = UNIT * images // (2 * total_or_one[-1]) if total[-1] else never
    served, used, order = np.zeros_like(total), np.zeros(images, dtype=bool), []
    for place in range(count):
        tried = _next(waiting[int(due.argmin())], used)
        ahead = has[tried].astype(np.int64) @ (due - UNIT * (place + 1))
        chosen = tried[int(ahead.argmin())]
        order.append(chosen)
        used[chosen] = True
        served += has[chosen]
        later = UNIT * images * (2 * served + 1) // (2 * total_or_one)
        due = np.where(has[chosen], np.where(served < total, later, never), due)
    return order


def _next(waiting: deque[int], used: np.ndarray) -> list[int]:
    """Give the next images of a class that are not used, and put them at its end."""
    found: list[int] = []
    for _ in range(len(waiting)):
        image = waiting.popleft()
        if not used[image]:
            found.append(image)
            if len(found) == TRIED:
                break
    waiting.extend(found)
    return found
