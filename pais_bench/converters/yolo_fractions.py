"""Read the coordinates of YOLO's text files, which are fractions of the photo's width and height."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pais_bench.errors import BenchError

TOLERANCE = 0.01
"""How far a coordinate may lie outside of 0..1: tools round, and the mask is cut at the photo's edge."""


def read_fractions(fields: Sequence[str], place: str) -> list[float]:
    """Return numbers of 0..1, or little outside; raise BenchError for all others."""
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise BenchError(f"{place}: {error}; give a class, then x and y of every point, as fractions") from None
    if wrong := [value for value in values if not -TOLERANCE <= value <= 1 + TOLERANCE or math.isnan(value)]:
        raise BenchError(
            f"{place}: {wrong[0]:g} is no fraction of the photo; divide x by its width and y by its height"
        )
    return values
