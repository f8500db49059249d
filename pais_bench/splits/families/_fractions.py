"""Read lists of a fraction of a training set: a folder has one labeled.txt for each, such as 1_32/labeled.txt.

A line names an image and its semantic mask; the image counts, by the stem of its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pais_bench.errors import BenchError
from pais_bench.splits.family import ImagePool, LabelledSet, listed_ids, read_published


def read_fraction(
    family: str, published: Mapping[int, str], what: str, pool: ImagePool, percent: float, fold: int, source: Path
) -> LabelledSet:
    """Read the list of a percent of fold 1; published maps denominators to the sha256 of their lists, what names them.

    Raises BenchError for other percents and folds, other files, and images that the pool lacks.
    """
    denominators = {f"{100 / denominator:g}": denominator for denominator in published}
    if f"{percent:g}" not in denominators:
        known = ", ".join(f"{100 / denominator:.10g} (1/{denominator})" for denominator in published)
        raise BenchError(f"split.percents: {family} has no {percent:.10g} %; choose one of {known}")
    if fold != 1:
        raise BenchError(f"split.folds: {family} has no fold {fold}; its files are one fold, choose 1")
    denominator = denominators[f"{percent:g}"]
    path, sha256 = source / f"1_{denominator}" / "labeled.txt", published[denominator]
    lines = read_published(path, sha256, what).decode().splitlines()
    listed = [PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
    stored = {Path(pool.name(image_id)).stem: image_id for image_id in pool.ids}
    ids = listed_ids(path, listed, stored, "prepare the whole training set under its published file names")
    return LabelledSet(ids, len(pool.ids), source_sha256=sha256)
