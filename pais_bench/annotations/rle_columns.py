"""Check many segmentations at a time: polygons, and RLE with counts as a list or as text.

Only segmentations that pass are handed to pycocotools, because it trusts the counts of an RLE, and allocates memory for
every fifth of a pixel along a polygon.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAX_PIXELS = 2**29 - 1
"""Pixels of the largest image: a difference of two counts then fits the six characters that pycocotools can read."""
CHUNK_SIZE = 16_384  # compressed RLEs that are decoded at a time
CONVERSION_ERRORS = (ValueError, TypeError, KeyError, OverflowError)
"""What a conversion to a column raises, pyarrow's own errors included."""

POLYGONS = pa.large_list(pa.large_list(pa.float64()))
COUNTS = pa.large_list(pa.uint32())

IntArray = npt.NDArray[np.int64]


class InvalidRecords(Exception):
    """Report the fault, a key of validate.FAULTS, of at least one of the records that were checked together."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


def check_segmentations(segmentations: Sequence[Any], height: IntArray, width: IntArray) -> None:
    """Raise InvalidRecords if any segmentation cannot be decoded; height, width i64[n]: the sizes of their images."""
    if not set(map(type, segmentations)) <= {list, dict} or not all(segmentations):
        raise InvalidRecords("no mask")
    polygons: list[int] = []
    counts: list[int] = []
    compressed: list[int] = []
    for row, (segmentation, *size) in enumerate(zip(segmentations, height.tolist(), width.tolist(), strict=True)):
        if type(segmentation) is list:
            polygons.append(row)
        else:
            if not isinstance(segmentation.get("size"), (list, tuple)) or list(segmentation["size"]) != size:
                raise InvalidRecords("RLE size")
            if not isinstance(segmentation.get("counts"), (list, str)) or not segmentation["counts"]:
                raise InvalidRecords("RLE counts")
            (counts if isinstance(segmentation["counts"], list) else compressed).append(row)
    _check_polygons([segmentations[row] for row in polygons], np.maximum(height, width)[polygons])
    _check_counts([segmentations[row]["counts"] for row in counts], (height * width)[counts])
    for start in range(0, len(compressed), CHUNK_SIZE):
        rows = compressed[start : start + CHUNK_SIZE]
        if not counts_cover([segmentations[row]["counts"] for row in rows], (height * width)[rows]):
            raise InvalidRecords("RLE counts")


def _check_polygons(segmentations: Sequence[Any], longer_side: IntArray) -> None:
    if not segmentations:
        return
    try:
        column = pa.array(segmentations, POLYGONS)
    except CONVERSION_ERRORS as error:
        raise InvalidRecords("polygon") from error
    outer, inner = column.offsets.to_numpy(), column.values.offsets.to_numpy()
    length, values = np.diff(inner), column.values.values.to_numpy(zero_copy_only=False)
    if column.values.null_count or column.values.values.null_count or not np.isfinite(values).all():
        raise InvalidRecords("polygon")
    if (length < 6).any() or (length % 2).any():
        raise InvalidRecords("polygon")
    starts = inner[outer[:-1]]
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    if (low < -longer_side).any() or (high > 2 * longer_side).any():
        raise InvalidRecords("far polygon")


def _check_counts(counts: Sequence[Any], pixels: IntArray) -> None:
    if not set(map(type, chain.from_iterable(counts))) <= {int}:
        raise InvalidRecords("RLE counts")
    try:
        column = pa.array(counts, COUNTS)
    except CONVERSION_ERRORS as error:
        raise InvalidRecords("RLE counts") from error
    ends = np.concatenate([[0], np.cumsum(column.values.to_numpy(), dtype=np.int64)])
    if (np.diff(ends[column.offsets.to_numpy()]) != pixels).any():
        raise InvalidRecords("RLE counts")


def counts_cover(texts: Sequence[str], pixels: IntArray) -> bool:
    """Return whether every text, none of them empty, holds the counts of a compressed RLE of so many pixels."""
    decoded = decode_counts(texts)
    if decoded is None:
        return False
    value, first = decoded
    return bool((value >= 0).all() and (np.add.reduceat(value, first) == pixels).all())


def decode_counts(texts: Sequence[str]) -> tuple[IntArray, IntArray] | None:
    """Return the counts of compressed RLEs i64[m] one after the other, and the position i64[n] of each text's first.

    None where a text, none of them empty, has other characters or an unfinished count. A count is little-endian in
    characters of 6 bits above '0': 5 bits of value, and one that is set if another character follows; from the fourth
    count on it is the difference to the last but one. Source: rleFrString of the COCO API.
    """
    encoded = "".join(texts).encode("utf-8", "surrogatepass")
    symbols = np.frombuffer(encoded, dtype=np.uint8).astype(np.int64) - 48
    if len(symbols) != sum(map(len, texts)) or (symbols < 0).any() or (symbols > 63).any():
        return None
    borders = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    is_last = symbols < 32
    if not is_last[borders[1:] - 1].all():
        return None
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > 6:
        return None
    digit = np.arange(len(symbols)) - np.repeat(starts, length)
    value = np.add.reduceat((symbols & 31) << (5 * digit), starts)
    value -= np.where(symbols[ends] & 16, 1 << (5 * length), 0)
    first = np.searchsorted(ends, borders[:-1])
    text = np.repeat(np.arange(len(texts)), np.diff(np.append(first, len(ends))))
    position = np.arange(len(ends)) - first[text]
    for parity in (0, 1):
        differences = np.flatnonzero((position % 2 == parity) & (position > 0))
        if len(differences):
            value[differences] = _cumsum_by_group(value[differences], text[differences])
    return value, first


def _cumsum_by_group(values: IntArray, group: IntArray) -> IntArray:
    """Return cumulative sums that restart with every group; equal groups are adjacent."""
    total = np.cumsum(values)
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    return np.asarray(total - np.repeat((total - values)[heads], np.diff(np.append(heads, len(values)))))
