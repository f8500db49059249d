"""Read the split of Unbiased Teacher v1 and v2, Dense Teacher and PaddleDetection.

COCO_supervision.txt lists positions in detectron2's list of the images with an annotation that is no crowd, sorted by
image id (detectron2's load_coco_json sorts; instances_train2017.json does not). In a list of another length the
positions mean other images, so it is refused. The percents of a fold are not nested.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pais_bench.errors import BenchError
from pais_bench.splits.family import ImagePool, LabelledSet, read_published

SOURCE = "Unbiased Teacher's dataseed/COCO_supervision.txt"
SHA256 = "3dc88c1fee5676d3da717a4a2a357e5e590d9bd7c94e2feadc60d43d70c4401d"
LISTED = 117_266


def draw(pool: ImagePool, percent: float, fold: int, source: Path) -> LabelledSet:
    """Read a percent of seed 0..9; raise BenchError for others, another file, and data other than train2017."""
    seeds = {float(key): value for key, value in json.loads(read_published(source, SHA256, SOURCE)).items()}
    if percent not in seeds:
        known = ", ".join(f"{key:g}" for key in sorted(seeds))
        raise BenchError(f"split.percents: {source.name} has no {percent:g} %; choose one of {known}")
    if str(fold) not in seeds[percent]:
        raise BenchError(f"split.folds: {source.name} has no seed {fold}; choose one of {', '.join(seeds[percent])}")
    objects = pool.objects()
    listed = np.unique(objects.image_id[~objects.crowd])
    if len(listed) != LISTED:
        raise BenchError(
            f"split.family: unbiased_teacher indexes a list of {LISTED} images with annotations, COCO's train2017, "
            f"but this dataset has {len(listed)}; choose another family"
        )
    note = f"positions in the {LISTED} images with annotations, not in all {len(pool.ids)}"
    return LabelledSet(listed[seeds[percent][str(fold)]].tolist(), LISTED, note, SHA256)
