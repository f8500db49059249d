"""Add noise to the labels of the labelled images, the same for every method.

Missing annotations and flipped classes are sampled when the split is made, and stored in it; masks are changed when
they are read. Every random number is a function of (seed of the label noise, kind, annotation or image id) alone: it
depends neither on the order of the records nor on the other kinds. Crowd regions stay as they are, and what is sampled
is sampled of things: stuff neither loses its annotation nor its class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pais_bench.annotations import rle
from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError
from pais_bench.study.split import LabelNoise

if TYPE_CHECKING:
    from pais_bench.splits.split import Split

IMBALANCE, MISSING, CLASS_FLIP, BOUNDARY_JITTER = range(1, 5)
"""The kind of noise, as it enters a seed."""

Record = Mapping[str, Any]


class NoisyLabels(NamedTuple):
    """Hold the remaining labelled ids, the ids of dropped annotations, and the new classes of flipped ones."""

    ids: list[int]
    dropped: list[int]
    flipped: dict[int, int]


def sample_label_noise(noise: LabelNoise, ids: Sequence[int], store: Store) -> NoisyLabels:
    """Sample the noise of labelled images; raise BenchError if there is no other class to flip to."""
    classes = store.thing_ids
    annotations = {
        image_id: [ann for ann in store.annotations(image_id) if not ann["iscrowd"] and ann["category_id"] in classes]
        for image_id in ids
    }
    if noise.imbalance:
        ids = make_imbalanced(annotations, noise.imbalance, noise.seed)
    present = [ann for image_id in ids for ann in annotations[image_id]]
    dropped: set[int] = set()
    if noise.missing:
        dropped = _sample_ids(present, noise.missing, noise.seed, MISSING)
        present = [ann for ann in present if ann["id"] not in dropped]
    flipped = {}
    if noise.class_flip:
        if len(classes) < 2:
            raise BenchError("split.label_noise.class_flip: the dataset has one class; remove the key")
        selected = _sample_ids(present, noise.class_flip, noise.seed, CLASS_FLIP)
        old = {ann["id"]: ann["category_id"] for ann in present if ann["id"] in selected}
        flipped = {ann_id: _sample_other_class(classes, old[ann_id], noise.seed, ann_id) for ann_id in sorted(old)}
    return NoisyLabels(sorted(ids), sorted(dropped), flipped)


def apply(split: Split, annotations: Iterable[Record], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the COCO records of an image of size (H, W) with the label noise of a split."""
    noise = split.label_noise
    if noise is None:
        return [dict(ann) for ann in annotations]
    dropped, flipped, noisy = set(split.dropped or ()), split.flipped or {}, []
    for ann in annotations:
        if ann["id"] in dropped:
            continue
        changed = {**ann, "category_id": flipped.get(ann["id"], ann["category_id"])}
        if (noise.boundary_jitter or noise.coarse_polygons) and not ann["iscrowd"]:
            mask = rle.decode_mask(ann["segmentation"], size)
            if noise.boundary_jitter:
                mask = jitter_boundary(mask, noise.boundary_jitter, noise.seed, ann["id"])
            if noise.coarse_polygons:
                mask = coarsen(mask, noise.coarse_polygons)
            changed |= rle.describe_mask(mask)
        noisy.append(changed)
    return noisy


def jitter_boundary(mask: np.ndarray, max_shift: int, seed: int, annotation_id: int) -> np.ndarray:
    """Shift a mask bool[H,W] by -max_shift..max_shift pixels along each axis, and dilate it by 0..max_shift.

    The mask is returned unchanged if all of it would leave the image.
    """
    words, side = _random_words(seed, BOUNDARY_JITTER, annotation_id), 2 * max_shift + 1
    down, right = int(words[0] % side) - max_shift, int(words[1] % side) - max_shift
    radius = int(words[2] % (max_shift + 1))
    padding = max_shift + radius
    height, width = mask.shape
    padded = np.pad(mask, padding)
    sums = np.pad(padded.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    # A pixel is on if any pixel of its window of 2 radius + 1 pixels, moved against the shift, is on.
    top, left = padding - down - radius, padding - right - radius
    low, high = slice(top, top + height), slice(top + 2 * radius + 1, top + 2 * radius + 1 + height)
    first, last = slice(left, left + width), slice(left + 2 * radius + 1, left + 2 * radius + 1 + width)
    jittered = sums[high, last] - sums[low, last] - sums[high, first] + sums[low, first] > 0
    return jittered if jittered.any() else mask


def coarsen(mask: np.ndarray, cell_size: int) -> np.ndarray:
    """Round a mask bool[H,W] to square cells: those that are at least half full, or else the fullest cells."""
    rows, columns = (np.arange(0, side, cell_size) for side in mask.shape)
    filled = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows, 0), columns, 1)
    area = np.outer(np.diff(np.append(rows, mask.shape[0])), np.diff(np.append(columns, mask.shape[1])))
    fraction = filled / area
    threshold = min(0.5, fraction.max())
    coarse = np.repeat(np.repeat((fraction >= threshold) & (filled > 0), cell_size, 0), cell_size, 1)
    return coarse[: mask.shape[0], : mask.shape[1]]


def make_imbalanced(annotations: Mapping[int, Sequence[Record]], ratio: float, seed: int) -> list[int]:
    """Return the ids of images that remain, so that the classes' instances fall exponentially by rank.

    The classes keep their order; the first is to have ratio times the instances of the last. Images are removed one by
    one, in passes over a random order, if that brings the logarithms of the counts nearer to a line of that slope; no
    class loses its last instance. Images hold several classes, so the profile is met as far as they allow.
    """
    order = sorted(annotations, key=lambda image_id: (int(_random_words(seed, IMBALANCE, image_id)[0]), image_id))
    classes = sorted({ann["category_id"] for anns in annotations.values() for ann in anns})
    column = {category_id: index for index, category_id in enumerate(classes)}
    counts = np.zeros((len(order), len(classes)), dtype=np.int64)
    for row, image_id in enumerate(order):
        for ann in annotations[image_id]:
            counts[row, column[ann["category_id"]]] += 1
    total, kept = counts.sum(0), np.ones(len(order), dtype=bool)
    if len(classes) < 2:
        return order
    slope = math.log(ratio) / (len(classes) - 1)
    target = np.empty(len(classes))
    target[np.argsort(-total, kind="stable")] = -slope * np.arange(len(classes))
    best = float(np.var(np.log(total) - target))
    remaining = -1
    while remaining != int(kept.sum()):
        remaining = int(kept.sum())
        for row in np.flatnonzero(kept & counts.any(1)).tolist():
            fewer = total - counts[row]
            variance = float(np.var(np.log(fewer) - target)) if fewer.min() > 0 else math.inf
            if variance < best - 1e-9:
                total, best, kept[row] = fewer, variance, False
    return [image_id for image_id, is_kept in zip(order, kept, strict=True) if is_kept]


def _sample_ids(annotations: Iterable[Record], percent: float, seed: int, kind: int) -> set[int]:
    """Return the ids of a percentage of annotations."""
    limit = percent / 100 * 2.0**64
    return {ann["id"] for ann in annotations if float(_random_words(seed, kind, ann["id"])[0]) < limit}


def _sample_other_class(classes: Sequence[int], category_id: int, seed: int, annotation_id: int) -> int:
    """Return one of the other classes, with equal probabilities."""
    step = 1 + int(_random_words(seed, CLASS_FLIP, annotation_id)[1] % (len(classes) - 1))
    return classes[(classes.index(category_id) + step) % len(classes)]


def _random_words(seed: int, kind: int, number: int) -> list[int]:
    """Return three random words of 64 bits; NumPy guarantees that SeedSequence is the same in every version."""
    return np.random.SeedSequence([seed, kind, number % 2**64]).generate_state(3, np.uint64).tolist()  # type: ignore[no-any-return]
