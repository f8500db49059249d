"""Read the split of Cityscapes that Guided Distillation and S4M publish: four text files, the same in both.

perc_5, 10, 20 and 30.txt name 144, 296, 592 and 888 of the 2,975 training images: 4.84, 9.95, 19.9 and 29.85 %. They
are not nested, and not stratified by city.
"""

from __future__ import annotations

from pathlib import Path

from pais_bench.errors import BenchError
from pais_bench.splits.family import ImagePool, LabelledSet, listed_ids, read_published

SOURCE = "the folder of Guided Distillation's or S4M's perc_5.txt, perc_10.txt, perc_20.txt and perc_30.txt"
SHA256 = {
    5: "da09a92a74030679fe00288dcbd0f471963cb2330ae07db8338dc91c2a00f7ef",
    10: "53fa4fda61e82362715a1f546a5832b0a7d9bfdeb1398298f402c25e696e2bd6",
    20: "19d9af1a1156dbc2ecdf014d415f806cdcaa3a2f6615362a2bb48d7c1c470420",
    30: "94a4ad58a511d0071fcfbe2ad81764fdb388289a94971a356a9eee592256381f",
}
LISTED, STORED = "_gtFine_instanceIds.png", "_leftImg8bit"


def draw(pool: ImagePool, percent: float, fold: int, source: Path) -> LabelledSet:
    """Read a percent of fold 1; raise BenchError for others, other files, and images that the pool lacks."""
    if percent not in SHA256:
        raise BenchError(
            f"split.percents: s4m_cityscapes has no {percent:g} %; choose one of {', '.join(map(str, SHA256))}"
        )
    if fold != 1:
        raise BenchError(f"split.folds: s4m_cityscapes has no fold {fold}; its files are one fold, choose 1")
    path, sha256 = source / f"perc_{percent:g}.txt", SHA256[int(percent)]
    listed = [line.removesuffix(LISTED) for line in read_published(path, sha256, SOURCE).decode().split()]
    stored = {Path(pool.name(image_id)).stem.removesuffix(STORED): image_id for image_id in pool.ids}
    ids = listed_ids(path, listed, stored, "prepare all of Cityscapes")
    return LabelledSet(ids, len(pool.ids), source_sha256=sha256)
