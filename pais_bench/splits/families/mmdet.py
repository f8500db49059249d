"""Draw the split of mmdetection 3.x, which has fewer images than its percent, and others than Soft Teacher's.

Its tools/misc/split_coco.py draws int(percent / 100 * N) times with replacement and drops duplicates: at 10 % that
leaves 9.51 %. The split depends on the order of the annotation file, and its percents are nested.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = ""


def draw(pool: ImagePool, percent: float, fold: int, source: Path | None) -> LabelledSet:
    """Draw as the script does, and note the effective percent."""
    count = int(percent / 100.0 * len(pool.ids))
    drawn = np.random.RandomState(fold).choice(len(pool.ids), size=count)
    ids = [pool.ids[position] for position in dict.fromkeys(drawn.tolist())]
    effective = 100 * len(ids) / max(len(pool.ids), 1)
    note = (
        f"mmdetection draws with replacement: {count} draws, {len(ids)} images, {effective:.2f} % and not {percent:g} %"
    )
    return LabelledSet(ids, len(pool.ids), note)
