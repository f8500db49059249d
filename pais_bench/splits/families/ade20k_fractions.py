"""Read the splits of ADE20K that DEARLi (panoptic) publishes.

1/128, 1/64, 1/32, 1/16 and 1/8 name 158, 316, 632, 1,263 and 2,526 of the 20,210 training images, and are nested.
UniMatch V2 (semantic) has the same images at 1/64, 1/16 and 1/8, the last two in files that differ by a line break, and
another list of 631 at 1/32. No paper on instance segmentation is known to use them.
"""

from __future__ import annotations

from pathlib import Path

from pais_bench.splits.families._fractions import read_fraction
from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = "DEARLi's folder datasets/ade_splits, with 1_128/labeled.txt and so on (`pais-bench fetch splits`)"
SHA256 = {
    128: "5b28d705e511a35f89b19b997eb68febea76253a6bd88429b62cf4e8446f0d05",
    64: "78f423b10adcb3670e048c02bf43707430ede157036c195b61912dc4bf25602a",
    32: "0a2f3b29515a07ea912f256d49b650a8436b846f838f10b122799ef3b2395f93",
    16: "85cb4de0a7896e90511e0ad5581f7b60a44d0896cfbdede01e11d1a55cb7b6f8",
    8: "73d45bc89e256a85419ae72cf88fd86ffbadab0ed86b0a186cae77192815582e",
}


def draw(pool: ImagePool, percent: float, fold: int, source: Path) -> LabelledSet:
    """Read a fraction as a percent of fold 1, such as 12.5 for 1/8."""
    return read_fraction("ade20k_fractions", SHA256, SOURCE, pool, percent, fold, source)
