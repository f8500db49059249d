"""Merge the instances that a network predicts, of things and of stuff, into one panoptic map of an image.

Source: Zhang et al. (2021), K-Net: towards unified image segmentation, NeurIPS, and its release's panoptic inference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pais_bench.annotations.panoptic import VOID, PanopticMap
from pais_bench.annotations.rle import decode_mask

THING_SCORE = 0.3
"""The least score of a thing; K-Net has none for stuff."""
VISIBLE = 0.6
"""The least part of its own pixels that an instance keeps; one of which others cover more is left out."""
PROBABILITY = 0.5
"""The mask probability from which on a pixel is an instance's own."""

Size = tuple[int, int]
Masks = npt.NDArray[np.bool_] | npt.NDArray[np.floating[Any]]


class Merged(NamedTuple):
    """Hold the segment of every pixel, i32[H,W], VOID for none, and of segment k the index of its instance at k - 1."""

    ids: npt.NDArray[np.int32]
    instances: list[int]


def merge(
    masks: Iterable[Masks], scores: Sequence[float], classes: Sequence[int], things: Collection[int], size: Size
) -> Merged:
    """Merge N instances of an image of size (H, W), sorted by falling score, into segments.

    masks are bool[H,W], or probabilities 0..1 | scores 0..1 | things: the classes of single objects. A pixel goes to
    the instance of the highest product of score and mask probability, the earlier one of equals, and to none where all
    are 0. Then things below THING_SCORE are dropped, and instances of which less than VISIBLE is left: their pixels are
    void. Instances of one stuff class are one segment, whose instance is the first of them.
    """
    owner, own_pixels = _owners(masks, scores, size)
    kept_pixels = np.bincount(owner.reshape(-1), minlength=len(scores) + 1)[1:]
    segment_of = np.full(len(scores) + 1, VOID, dtype=np.int32)
    instances: list[int] = []
    stuff: dict[int, int] = {}
    for index, (score, name) in enumerate(zip(scores, classes, strict=True)):
        if name in things and score < THING_SCORE:
            continue
        if not kept_pixels[index] or not own_pixels[index] or kept_pixels[index] / own_pixels[index] < VISIBLE:
            continue
        if name not in stuff:
            instances.append(index)
        segment_of[index + 1] = stuff.get(name, len(instances))
        if name not in things:
            stuff.setdefault(name, len(instances))
    return Merged(segment_of[owner], instances)


def merge_records(records: Sequence[Mapping[str, Any]], size: Size, things: Collection[int]) -> PanopticMap:
    """Merge the COCO result records of an image of size (H, W), in any order; things are ids of categories."""
    ordered = sorted(records, key=lambda record: -record["score"])
    categories = [record["category_id"] for record in ordered]
    masks = (decode_mask(record["segmentation"], size) for record in ordered)
    merged = merge(masks, [record["score"] for record in ordered], categories, things, size)
    segments = [{"id": number, "category_id": categories[index]} for number, index in enumerate(merged.instances, 1)]
    return PanopticMap(merged.ids, segments)


def _owners(masks: Iterable[Masks], scores: Sequence[float], size: Size) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Return the number 1..N of every pixel's instance, 0 for none, and how many pixels each has of its own."""
    # RLE is decoded column by column, and most masks are small: only their rows and columns are looked at.
    owner, highest = np.zeros(size, dtype=np.int32, order="F"), np.zeros(size, dtype=np.float32, order="F")
    own_pixels: list[int] = []
    for number, (mask, score) in enumerate(zip(masks, scores, strict=True), 1):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else np.s_[:0, :0]
        product = np.float32(score) * mask[inside].astype(np.float32)
        higher = product > highest[inside]
        np.copyto(owner[inside], number, where=higher)
        np.copyto(highest[inside], product, where=higher)
        own_pixels.append(int((mask[inside] >= PROBABILITY).sum()))
    return owner, own_pixels
