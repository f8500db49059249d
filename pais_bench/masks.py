"""Can these segmentations be decoded? Polygons, and RLE with counts as a list or as text, checked many at a time.

pycocotools is handed nothing that did not pass here: it trusts the counts of an RLE, and reserves memory for every
fifth of a pixel along a polygon.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST_PIXELS = 2**29 - 1
"""Pixels of the largest image: a difference of two runs then fits the six characters that pycocotools can read."""
AT_ONCE = 16_384  # texts that are decoded at a time
REFUSED = (ValueError, TypeError, KeyError, OverflowError)
"""What a conversion to a column raises, pyarrow's own errors included."""

POLYGONS = pa.large_list(pa.large_list(pa.float64()))
RUNS = pa.large_list(pa.uint32())

Whole = npt.NDArray[np.int64]


class Wrong(Exception):
    """Say of which kind the fault is that some of the converted records have."""

    def __init__(self, kind: str) -> None:
        """Keep the kind."""
        super().__init__(kind)
        self.kind = kind


class Masks(NamedTuple):
    """Hold segmentations as three columns; in two of them a row is empty."""

    polygons: pa.Array
    runs: pa.Array
    packed: pa.Array


def columns(segmentations: Sequence[Any], height: Whole, width: Whole) -> Masks:
    """Convert the segmentations of annotations whose images have these sizes; raise Wrong if any cannot be decoded."""
    if not set(map(type, segmentations)) <= {list, dict} or not all(segmentations):
        raise Wrong("no mask")
    for mask, high, wide in zip(segmentations, height.tolist(), width.tolist(), strict=True):
        if type(mask) is dict:
            if not isinstance(mask.get("size"), (list, tuple)) or list(mask["size"]) != [high, wide]:
                raise Wrong("RLE size")
            if not isinstance(mask.get("counts"), (list, str)) or not mask["counts"]:
                raise Wrong("RLE counts")
    counts = [mask["counts"] if type(mask) is dict else () for mask in segmentations]
    return Masks(
        _polygons([mask if type(mask) is list else () for mask in segmentations], np.maximum(height, width)),
        _runs([one if isinstance(one, list) else () for one in counts], height * width),
        _packed([one if isinstance(one, str) else "" for one in counts], height * width),
    )


def _polygons(rows: Sequence[Any], side: Whole) -> pa.Array:
    try:
        found = pa.array(rows, POLYGONS)
    except REFUSED as error:
        raise Wrong("polygon") from error
    outer, inner = found.offsets.to_numpy(), found.values.offsets.to_numpy()
    length, values = np.diff(inner), found.values.values.to_numpy(zero_copy_only=False)
    if found.values.null_count or found.values.values.null_count or not np.isfinite(values).all():
        raise Wrong("polygon")
    if (length < 6).any() or (length % 2).any():
        raise Wrong("polygon")
    filled = np.diff(outer) > 0
    if filled.any():
        starts = inner[outer[:-1][filled]]
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        if (low < -side[filled]).any() or (high > 2 * side[filled]).any():
            raise Wrong("far polygon")
    return found


def _runs(rows: Sequence[Any], pixels: Whole) -> pa.Array:
    if not set(map(type, chain.from_iterable(rows))) <= {int}:
        raise Wrong("RLE counts")
    try:
        found = pa.array(rows, RUNS)
    except REFUSED as error:
        raise Wrong("RLE counts") from error
    ends, offsets = np.concatenate([[0], np.cumsum(found.values.to_numpy(), dtype=np.int64)]), found.offsets.to_numpy()
    filled = np.array([isinstance(row, list) for row in rows], dtype=bool)
    if ((ends[offsets[1:]] - ends[offsets[:-1]])[filled] != pixels[filled]).any():
        raise Wrong("RLE counts")
    return found


def _packed(rows: Sequence[str], pixels: Whole) -> pa.Array:
    try:
        found = pa.array(rows, pa.large_string())
    except REFUSED as error:
        raise Wrong("RLE counts") from error
    chosen = [row for row, text in enumerate(rows) if text]
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        if not cover([rows[row] for row in some], pixels[some]):
            raise Wrong("RLE counts")
    return found


def cover(texts: Sequence[str], pixels: Whole) -> bool:
    """Tell whether every text, none of them empty, is the counts of a compressed RLE of so many pixels.

    A count is little-endian in characters of 6 bits above '0', 5 of value and one that tells of more; from the fourth
    count on it is the difference to the last but one. Source: rleFrString of the COCO API.
    """
    symbols = np.frombuffer("".join(texts).encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if len(symbols) != sum(map(len, texts)) or (symbols < 0).any() or (symbols > 63).any():
        return False
    borders = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    last = symbols < 32
    if not last[borders[1:] - 1].all():
        return False
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > 6:
        return False
    place = np.arange(len(symbols)) - np.repeat(starts, length)
    value = np.add.reduceat((symbols & 31) << (5 * place), starts)
    value -= np.where(symbols[ends] & 16, 1 << (5 * length), 0)
    first = np.searchsorted(ends, borders[:-1])
    text = np.repeat(np.arange(len(texts)), np.diff(np.append(first, len(ends))))
    position = np.arange(len(ends)) - first[text]
    for parity in (0, 1):
        chain_of = np.flatnonzero((position % 2 == parity) & (position > 0))
        if len(chain_of):
            value[chain_of] = _sums(value[chain_of], text[chain_of])
    return bool((value >= 0).all() and (np.add.reduceat(value, first) == pixels).all())


def _sums(values: Whole, group: Whole) -> Whole:
    """Give the running sums that begin anew with every group."""
    total = np.cumsum(values)
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    return np.asarray(total - np.repeat((total - values)[heads], np.diff(np.append(heads, len(values)))))
