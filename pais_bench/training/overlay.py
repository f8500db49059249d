"""Paint the instances of an image over it: a colour for each class, with name and score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pais_bench.annotations.rle import decode_mask
from pais_bench.data.augment import Pixels
from pais_bench.whole_file import open_whole

LONGEST = 1600
"""Pixels of the longer side of an overlay at most: it is looked at, and nothing is computed from it."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999")
"""A colour for each of eight classes, repeated for more: the colours of the figures of a report."""
SHARE = 0.45  # of the colour in a pixel of a mask


def write_overlay(path: Path, image: Pixels, records: Sequence[Mapping[str, Any]], classes: Mapping[int, str]) -> None:
    """Write an image u8[H,W,3] with its records as a JPEG, whole or not at all.

    Records have category_id, score and segmentation, by falling score; classes maps their category ids to names.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    colours = {number: _rgb(PALETTE[index % len(PALETTE)]) for index, number in enumerate(sorted(classes))}
    for record in reversed(records):  # the surest on top
        mask = decode_mask(record["segmentation"], (height, width)).astype(np.uint8)
        _paint(canvas, np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA)), colours[record["category_id"]])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for record in reversed(records):
        place = (record["bbox"][0] * scale + 2, record["bbox"][1] * scale + 1)
        text = f"{classes[record['category_id']]} {record['score']:.2f}"
        text = text.encode("latin-1", "replace").decode("latin-1")  # what the font has that Pillow brings
        draw.text(place, text, fill="white", stroke_width=1, stroke_fill="black")
    with open_whole(path, "wb") as file:
        picture.save(file, "JPEG", quality=90)


def _paint(canvas: Pixels, mask: Pixels, colour: tuple[int, int, int]) -> None:
    """Mix a colour into the pixels u8[h,w,3] of a mask u8[h,w], and draw its outline."""
    inside = mask > 0
    mixed = (1 - SHARE) * canvas[inside] + SHARE * np.array(colour)
    canvas[inside] = mixed.round().astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, colour, 1)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
