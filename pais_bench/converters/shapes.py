"""Make a segmentation of what annotation tools draw: polygons as they are; circles and pieces of a mask as RLE."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pais_bench.annotations.rle import compress, decode_mask
from pais_bench.converters.formats.base import mask_of
from pais_bench.errors import BenchError
from pais_bench.images.pixels import Size


def are_points(points: Any) -> bool:
    """Return whether a value is a list of pairs of finite x, y."""
    return isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(_is_finite, point)) for point in points
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def flat(points: Sequence[Sequence[float]]) -> list[float]:
    """Return points as COCO has a polygon: [x0, y0, x1, y1, ...]."""
    return [value for point in points for value in point]


def without_holes(exterior: list[float], holes: Sequence[list[float]], size: Size) -> Any:
    """Return a polygon, as it is or, less its holes, as RLE."""
    if not holes:
        return exterior
    mask = decode_mask([exterior], size) & ~decode_mask(list(holes), size)
    return mask_of(mask)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float, size: Size) -> Any:
    """Return the pixels whose centres are inside an ellipse as RLE; the angle, in degrees, turns x towards y.

    An ellipse without extent has no pixel.
    """
    rows, columns = np.ogrid[: size[0], : size[1]]
    x, y = columns + 0.5 - centre[0], rows + 0.5 - centre[1]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    inside = (along * radii[1]) ** 2 + (across * radii[0]) ** 2 <= (radii[0] * radii[1]) ** 2
    return mask_of(inside & (min(radii) > 0))


def read_png(data: bytes, place: str) -> np.ndarray:
    """Return a PNG of a mask as bool[h,w], its transparency where it has one; raise BenchError for another file."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            return np.asarray(file.getchannel("A") if "A" in file.getbands() else file.convert("L")) > 0
    except (ValueError, OSError) as error:
        raise BenchError(f"{place}: its mask is no PNG ({error}); draw it again") from error


def paste(part: np.ndarray, x: int, y: int, size: Size, place: str) -> Any:
    """Return a mask with a part bool[h,w], whose upper left pixel is x, y, as RLE; it must not leave the photo."""
    if min(x, y) < 0 or y + part.shape[0] > size[0] or x + part.shape[1] > size[1]:
        raise BenchError(f"{place}: its mask leaves the photo of {size[1]} x {size[0]} pixels; draw it again")
    mask = np.zeros(size, dtype=bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask_of(mask)


def join_parts(parts: Sequence[Any], size: Size) -> Any:
    """Return the parts of one object: polygons together as they are, and anything else as one RLE."""
    if all(isinstance(part, list) for part in parts):
        return list(parts)
    if len(parts) == 1:
        return parts[0]
    joined = rle.merge([compress([part] if isinstance(part, list) else part, size) for part in parts])
    return {"size": list(size), "counts": joined["counts"].decode("ascii")}
