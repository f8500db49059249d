"""Read the splits of COCO that UniMatch V2 (semantic) and DEARLi (panoptic) publish, the same files in both.

1/512, 1/256, 1/128, 1/64 and 1/32 name 232, 463, 925, 1,849 and 3,697 images of train2017. They are not nested: they
overlap by chance. No paper on instance segmentation is known to use them.
"""

from __future__ import annotations

from pathlib import Path

from pais_bench.splits.families._fractions import read_fraction
from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = "DEARLi's folder datasets/coco_splits, with 1_512/labeled.txt and so on (`pais-bench fetch splits`)"
SHA256 = {
    512: "bd0ff85bf2d35b4641d08c2201257ad5b5f02f85ea0da457f44f0b97c4caeb37",
    256: "4cdf41b9d3b3afc3734057a605015860501199ed3680370ccb2c677fc159b127",
    128: "06067c0fb879b8e6ab8f4bdab3dfa641e8e4da2990200fa156daa33670329d79",
    64: "622b84ccbb5dcba32f4f5bb4ffaf1a9cf3e3f1f460b55dc02605fd099ebf1337",
    32: "781b5990914f7422ee9e1f6325a914f289e077621b77b9cd066c2d01d33a939e",
}


def draw(pool: ImagePool, percent: float, fold: int, source: Path) -> LabelledSet:
    """Read a fraction as a percent of fold 1, such as 3.125 for 1/32."""
    return read_fraction("coco_fractions", SHA256, SOURCE, pool, percent, fold, source)
