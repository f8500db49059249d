"""How are the labels of the labelled images spoilt, so that every method sees the same faults?

What leaves and what changes its class is drawn when the split is made, and stands in it; masks are spoilt when they are
read. Every draw is a function of (seed of the corruption, kind, annotation or image id), and of nothing else: neither
the order of the records nor another kind changes it. Crowd regions stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pais_bench import pixels
from pais_bench.split_choice import Corruption
from pais_bench.store import Store
from pais_bench.types import BenchError

if TYPE_CHECKING:
    from pais_bench.splits import Split

LONG_TAIL, DROP, FLIP, JITTER = range(1, 5)
"""The kind, as it enters a draw."""

Record = Mapping[str, Any]


class Spoilt(NamedTuple):
    """Hold what remains of the labelled ids, the ids of the annotations that left, and the new classes of others."""

    ids: list[int]
    dropped: list[int]
    flipped: dict[int, int]


def spoil(corruption: Corruption, ids: Sequence[int], store: Store) -> Spoilt:
    """Draw what a corruption does to labelled images; raise BenchError where there is no other class to flip to."""
    notes = {number: [note for note in store.annotations(number) if not note["iscrowd"]] for number in ids}
    classes = [number for number, _ in store.categories]
    if corruption.long_tail:
        ids = long_tail(notes, corruption.long_tail, corruption.seed)
    present = [note for number in ids for note in notes[number]]
    dropped = []
    if corruption.drop:
        dropped = sorted(_hit(present, corruption.drop, corruption.seed, DROP))
        gone = set(dropped)
        present = [note for note in present if note["id"] not in gone]
    flipped = {}
    if corruption.flip:
        if len(classes) < 2:
            raise BenchError("split.corruption.flip: the dataset has one class; remove the key")
        hit = _hit(present, corruption.flip, corruption.seed, FLIP)
        found = {note["id"]: note["category_id"] for note in present if note["id"] in hit}
        flipped = {number: _other(classes, found[number], corruption.seed, number) for number in sorted(found)}
    return Spoilt(sorted(ids), dropped, flipped)


def apply(split: Split, notes: Iterable[Record], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Give the COCO records of an image of size (H, W) as a split's corruption leaves them; without one, unchanged."""
    corruption = split.corruption
    if corruption is None:
        return [dict(note) for note in notes]
    dropped, flipped, found = set(split.dropped or ()), split.flipped or {}, []
    for note in notes:
        if note["id"] in dropped:
            continue
        changed = {**note, "category_id": flipped.get(note["id"], note["category_id"])}
        if (corruption.jitter or corruption.coarsen) and not note["iscrowd"]:
            mask = pixels.decode(note["segmentation"], size)
            if corruption.jitter:
                mask = jitter(mask, corruption.jitter, corruption.seed, note["id"])
            if corruption.coarsen:
                mask = coarsen(mask, corruption.coarsen)
            changed |= pixels.shape(mask)
        found.append(changed)
    return found


def jitter(mask: np.ndarray, most: int, seed: int, annotation: int) -> np.ndarray:
    """Move a mask bool[H,W] by -most..most pixels along each axis, grow it by 0..most; it never leaves the image."""
    words, side = _words(seed, JITTER, annotation), 2 * most + 1
    down, right, grown = int(words[0] % side) - most, int(words[1] % side) - most, int(words[2] % (most + 1))
    reach = most + grown
    height, width = mask.shape
    wide = np.pad(mask, reach)
    sums = np.pad(wide.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    # Of a pixel's window of 2 grown + 1 pixels, moved against the offset, one has to be on.
    top, left = reach - down - grown, reach - right - grown
    low, high = slice(top, top + height), slice(top + 2 * grown + 1, top + 2 * grown + 1 + height)
    first, last = slice(left, left + width), slice(left + 2 * grown + 1, left + 2 * grown + 1 + width)
    moved = sums[high, last] - sums[low, last] - sums[high, first] + sums[low, first] > 0
    return moved if moved.any() else mask


def coarsen(mask: np.ndarray, cell: int) -> np.ndarray:
    """Round a mask bool[H,W] to square cells: on where at least half of a cell is, or its fullest cells."""
    rows, columns = (np.arange(0, side, cell) for side in mask.shape)
    filled = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows, 0), columns, 1)
    room = np.outer(np.diff(np.append(rows, mask.shape[0])), np.diff(np.append(columns, mask.shape[1])))
    share = filled / room
    most = min(0.5, share.max())
    whole = np.repeat(np.repeat((share >= most) & (filled > 0), cell, 0), cell, 1)
    return whole[: mask.shape[0], : mask.shape[1]]


def long_tail(notes: Mapping[int, Sequence[Record]], ratio: float, seed: int) -> list[int]:
    """Give the ids of images that remain, such that the classes' instances fall exponentially by rank.

    The classes keep their order; the first is to have ratio times the instances of the last. Images leave one by one,
    in passes over an order drawn from the seed, if that brings the logarithms of the counts nearer to a line of that
    slope; no class loses its last instance. Images hold several classes, so the profile is met as far as they allow.
    """
    order = sorted(notes, key=lambda number: (int(_words(seed, LONG_TAIL, number)[0]), number))
    classes = sorted({note["category_id"] for found in notes.values() for note in found})
    column = {number: place for place, number in enumerate(classes)}
    counts = np.zeros((len(order), len(classes)), dtype=np.int64)
    for row, number in enumerate(order):
        for note in notes[number]:
            counts[row, column[note["category_id"]]] += 1
    total, kept = counts.sum(0), np.ones(len(order), dtype=bool)
    if len(classes) < 2:
        return order
    slope = math.log(ratio) / (len(classes) - 1)
    wanted = np.empty(len(classes))
    wanted[np.argsort(-total, kind="stable")] = -slope * np.arange(len(classes))
    best = float(np.var(np.log(total) - wanted))
    left = -1
    while left != int(kept.sum()):
        left = int(kept.sum())
        for row in np.flatnonzero(kept & counts.any(1)).tolist():
            fewer = total - counts[row]
            spread = float(np.var(np.log(fewer) - wanted)) if fewer.min() > 0 else math.inf
            if spread < best - 1e-9:
                total, best, kept[row] = fewer, spread, False
    return [number for number, stays in zip(order, kept, strict=True) if stays]


def _hit(notes: Iterable[Record], percent: float, seed: int, kind: int) -> set[int]:
    """Give the ids of the annotations that a percentage meets."""
    limit = percent / 100 * 2.0**64
    return {note["id"] for note in notes if float(_words(seed, kind, note["id"])[0]) < limit}


def _other(classes: Sequence[int], mine: int, seed: int, annotation: int) -> int:
    """Draw one of the other classes, all alike."""
    step = 1 + int(_words(seed, FLIP, annotation)[1] % (len(classes) - 1))
    return classes[(classes.index(mine) + step) % len(classes)]


def _words(seed: int, kind: int, number: int) -> list[int]:
    """Give three random words of 64 bits: NumPy promises that SeedSequence gives the same in every version."""
    return np.random.SeedSequence([seed, kind, number % 2**64]).generate_state(3, np.uint64).tolist()  # type: ignore[no-any-return]
