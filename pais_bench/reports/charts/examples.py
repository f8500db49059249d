"""Outline the masks of example images, so that the page shows the numbers of each where it is pointed at."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pais_bench.annotations import rle
from pais_bench.images.pixels import read_pixels
from pais_bench.reports.chart import Gallery, Shape
from pais_bench.reports.outlines import outlines

MAX_SIDE = 640
"""Pixels of the longer side of an image on the page."""
NUMBERS = {"class_weight": "class weight", "mask_weight": "mask weight", "score": "score", "mask_iou": "predicted IoU"}


def chart(
    points: pd.DataFrame, columns: Sequence[tuple[str, str]], titles: Sequence[str], colours: Mapping[str, str]
) -> Gallery:
    """Return a row per image and a column per (role, method); points are those of the figure."""
    records = points[points["role"] == "image"].drop_duplicates("image")
    images, rows = [], []
    for path, height, width in zip(records["image"], records["height"], records["width"], strict=True):
        size = int(height), int(width)
        images.append(_encode(read_pixels(Path(path), size)))
        of_image = points[points["image"] == path]
        rows.append(
            [
                _shapes(of_image[(of_image["role"] == role) & (of_image["method"] == method)], colours, size)
                for role, method in columns
            ]
        )
    return Gallery(images, [title.replace("\n", ", ") for title in titles], rows)


def _encode(pixels: Any) -> tuple[str, int, int]:
    """Return an image as a data URI of at most MAX_SIDE, and its original width and height."""
    image = Image.fromarray(pixels)
    width, height = image.size
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", width, height


def _shapes(masks: pd.DataFrame, colours: Mapping[str, str], size: tuple[int, int]) -> list[Shape]:
    """Return the shapes of masks, the largest first, so that the small ones lie above and can be pointed at."""
    found = []
    for _, row in masks.iterrows():
        mask = rle.decode_mask({"size": list(size), "counts": row["counts"].encode()}, size)
        if mask.any():
            dashed = row["correct"] == 0
            found.append((int(mask.sum()), Shape(svg_path(mask), colours[row["category"]], _text(row), dashed)))
    return [shape for _, shape in sorted(found, key=lambda pair: -pair[0])]


def _text(row: pd.Series) -> str:
    numbers = [f"{name} {row[column]:.2f}" for column, name in NUMBERS.items() if not pd.isna(row[column])]
    wrong = ["unmatched"] if row["correct"] == 0 else []
    return "\n".join([str(row["category"]), *numbers, *wrong])


def svg_path(mask: np.ndarray) -> str:
    """Return the SVG path around a mask bool[H,W], in its pixels; of a large one not every pixel is read."""
    parts = outlines(mask, math.ceil(max(mask.shape) / MAX_SIDE))
    return "".join("M" + "L".join(f"{x:g},{y:g}" for x, y in points) + "Z" for points in parts)
