"""Which images does mmdetection 3.x label? Fewer than it says, and others than Soft Teacher.

Its tools/misc/split_coco.py draws int(percent / 100 * N) times with replacement and drops what came twice: at 10 % that
leaves 9.51 %. It depends on the order of the annotation file, and its percents are nested.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pais_bench.pools import Drawn, Pool

SOURCE = ""


def draw(pool: Pool, percent: float, fold: int, source: Path | None) -> Drawn:
    """Draw as the script does, and tell what that gives."""
    count = int(percent / 100.0 * len(pool.ids))
    drawn = np.random.RandomState(fold).choice(len(pool.ids), size=count)
    ids = [pool.ids[position] for position in dict.fromkeys(drawn.tolist())]
    share = 100 * len(ids) / max(len(pool.ids), 1)
    note = f"mmdetection draws with replacement: {count} draws, {len(ids)} images, {share:.2f} % and not {percent:g} %"
    return Drawn(ids, len(pool.ids), note)
