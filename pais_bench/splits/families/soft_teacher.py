"""Draw the split of STAC, Soft Teacher, PseCo, PAIS and Noisy Boundaries.

int(percent / 100 * N) of N images without replacement; the pool includes images without annotations. The percents of a
fold are nested, and depend on the order of the annotation file. Source: Soft Teacher's and PAIS's
tools/dataset/semi_coco.py without its seed offset; Noisy Boundaries' scripts shuffle, and label the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = ""


def draw(pool: ImagePool, percent: float, fold: int, source: Path | None) -> LabelledSet:
    """Draw with the legacy generator seeded by the fold."""
    count = int(percent / 100.0 * len(pool.ids))
    drawn = np.random.RandomState(fold).choice(len(pool.ids), size=count, replace=False)
    return LabelledSet([pool.ids[position] for position in drawn], len(pool.ids))
