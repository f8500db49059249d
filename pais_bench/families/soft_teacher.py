"""Which images do STAC, Soft Teacher, PseCo and PAIS label, and Noisy Boundaries?

int(percent / 100 * N) of N images without replacement; images without annotations belong to the pool. The percents of a
fold are nested, and depend on the order of the annotation file. Source: Soft Teacher's and PAIS's
tools/dataset/semi_coco.py without its seed offset; Noisy Boundaries' scripts shuffle instead, and draw the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pais_bench.pools import Drawn, Pool

SOURCE = ""


def draw(pool: Pool, percent: float, fold: int, source: Path | None) -> Drawn:
    """Draw with the legacy generator seeded by the fold."""
    count = int(percent / 100.0 * len(pool.ids))
    drawn = np.random.RandomState(fold).choice(len(pool.ids), size=count, replace=False)
    return Drawn([pool.ids[position] for position in drawn], len(pool.ids))
