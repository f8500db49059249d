"""How good are pseudo-labels against the hidden truth? imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as rle

RIGHT = 0.5
"""The mask IoU from which on a pseudo-label is right."""

Array = NDArray[np.generic]


class Masks(Protocol):
    """Hold labels i64[N] 0..C-1, masks bool[N,H,W] and scores f32[N], as NumPy arrays or tensors on the CPU."""

    @property
    def labels(self) -> ArrayLike: ...
    @property
    def masks(self) -> ArrayLike: ...
    @property
    def scores(self) -> ArrayLike: ...


@dataclass
class Counts:
    """Count over images; every quality of the pseudo-labels is a ratio of two of these sums.

    right: kept that match a truth | right_iou: sum of their mask IoU with it | best_iou: sum over all kept of the mask
    IoU with the truth, of any class, that each overlaps best | overlapping: kept that overlap any truth | agreeing:
    those of them that have its class.
    """

    images: int = 0
    kept: int = 0
    truths: int = 0
    right: int = 0
    right_iou: float = 0.0
    best_iou: float = 0.0
    overlapping: int = 0
    agreeing: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other images to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def summary(self) -> dict[str, float | None]:
        """Give kept per image, and fractions 0..1: precision, recall, IoU and class accuracy; None for 0 / 0."""
        return {
            "kept_per_image": _ratio(self.kept, self.images),
            "precision": _ratio(self.right, self.kept),
            "recall": _ratio(self.right, self.truths),
            "right_iou": _ratio(self.right_iou, self.right),
            "best_iou": _ratio(self.best_iou, self.kept),
            "class_accuracy": _ratio(self.agreeing, self.overlapping),
        }


def compare(kept: Masks, truth: Masks) -> Counts:
    """Count one image's pseudo-labels against its truth, both in the same pixels; scores of the truth are not read.

    A pseudo-label is right when a truth of its class, not matched before, has mask IoU >= RIGHT with it. The higher
    score chooses first, and takes the truth that it overlaps best.
    """
    labels, expected = np.asarray(kept.labels), np.asarray(truth.labels)
    counts = Counts(images=1, kept=len(labels), truths=len(expected))
    if not counts.kept or not counts.truths:
        return counts
    iou = mask_iou(np.asarray(kept.masks), np.asarray(truth.masks))
    iou_of_class = np.where(labels[:, None] == expected[None, :], iou, 0)
    matched, best = _match(iou_of_class, np.asarray(kept.scores)), iou.max(axis=1)
    counts.right, counts.right_iou = len(matched), sum(matched)
    counts.best_iou, counts.overlapping = float(best.sum()), int((best > 0).sum())
    counts.agreeing = int(((iou_of_class.max(axis=1) == best) & (best > 0)).sum())
    return counts


def mask_iou(first: Array, second: Array) -> NDArray[np.float64]:
    """Give the IoU f64[N,M] of two sets of masks, bool[N,H,W] and bool[M,H,W] with N, M >= 1; 0 for two empty ones."""
    result: NDArray[np.float64] = rle.iou(_encode(first), _encode(second), [0] * len(second))
    return np.nan_to_num(result)


def _encode(masks: Array) -> list[dict[str, object]]:
    code: list[dict[str, object]] = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return code


def _match(iou: NDArray[np.float64], scores: NDArray[np.float64]) -> list[float]:
    """Give the IoU of every match of a row with a column of iou, greedily by falling score; equal scores in order."""
    free, matched = iou.copy(), []
    for row in np.argsort(-scores, kind="stable"):
        column = int(free[row].argmax())
        if free[row, column] >= RIGHT:
            matched.append(float(free[row, column]))
            free[:, column] = 0
    return matched


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
