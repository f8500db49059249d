"""Refuse to draw an imported split: `pais-bench import-split` writes it from the user's list of images."""

from __future__ import annotations

from pathlib import Path

from pais_bench.errors import BenchError
from pais_bench.splits.family import ImagePool, LabelledSet

SOURCE = ""


def draw(pool: ImagePool, percent: float, fold: int, source: Path | None) -> LabelledSet:
    """Raise BenchError that names the command to import the split."""
    raise BenchError(
        f"split.family: imported splits are not drawn; "
        f"run `pais-bench import-split STUDY FILE --percent {percent:g} --fold {fold}`"
    )
