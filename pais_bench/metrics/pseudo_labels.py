"""How good are pseudo-labels against the hidden truth? imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as rle

RIGHT = 0.5
"""The mask IoU from which on a pseudo-label is right."""
WEIGHT_EDGES = tuple(step / 4 for step in range(11))
"""The lower edges of the bins of weights, 0 to 2.5: PAIS's mask weight ends there."""

Array = NDArray[np.generic]


class Masks(Protocol):
    """Hold labels i64[N] 0..C-1, masks bool[N,H,W] and scores f32[N], as NumPy arrays or tensors on the CPU."""

    @property
    def labels(self) -> ArrayLike: ...
    @property
    def masks(self) -> ArrayLike: ...
    @property
    def scores(self) -> ArrayLike: ...


@dataclass(frozen=True)
class Verdict:
    """Hold what one image's pseudo-labels are worth.

    matched f64[N]: mask IoU with the truth of its class that it took, 0 where it took none | best f64[N]: mask IoU with
    the truth, of any class, that it overlaps best | agrees bool[N]: overlaps that truth, and has its class.
    """

    matched: NDArray[np.float64]
    best: NDArray[np.float64]
    agrees: NDArray[np.bool_]


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

    def add(self, verdict: Verdict, truths: int) -> None:
        """Add an image that has this number of true instances."""
        self.images += 1
        self.kept += len(verdict.best)
        self.truths += truths
        self.right += int((verdict.matched > 0).sum())
        self.right_iou += float(verdict.matched.sum())
        self.best_iou += float(verdict.best.sum())
        self.overlapping += int((verdict.best > 0).sum())
        self.agreeing += int(verdict.agrees.sum())

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


def judge(kept: Masks, truth: Masks) -> Verdict:
    """Compare one image's pseudo-labels with its truth, both in the same pixels; scores of the truth are not read.

    A pseudo-label is right when a truth of its class, not matched before, has mask IoU >= RIGHT with it. The higher
    score chooses first, and takes the truth that it overlaps best.
    """
    labels, expected = np.asarray(kept.labels), np.asarray(truth.labels)
    if not len(labels) or not len(expected):
        return Verdict(np.zeros(len(labels)), np.zeros(len(labels)), np.zeros(len(labels), dtype=bool))
    iou = mask_iou(np.asarray(kept.masks), np.asarray(truth.masks))
    iou_of_class = np.where(labels[:, None] == expected[None, :], iou, 0)
    best = iou.max(axis=1)
    agrees = (iou_of_class.max(axis=1) == best) & (best > 0)
    return Verdict(_match(iou_of_class, np.asarray(kept.scores)), best, agrees)


def calibration(predicted: NDArray[np.float64], found: NDArray[np.float64]) -> list[list[float]]:
    """Give [count, mean predicted, mean found] of each tenth of the range 0..1; [0, 0, 0] where nothing is."""
    place = np.clip((predicted * 10).astype(int), 0, 9)
    count = np.bincount(place, minlength=10)
    sums = (np.bincount(place, weights=values, minlength=10) / np.maximum(count, 1) for values in (predicted, found))
    return [[int(n), round(float(a), 4), round(float(b), 4)] for n, a, b in zip(count, *sums, strict=True)]


def histogram(weights: NDArray[np.float64]) -> list[int]:
    """Count weights between WEIGHT_EDGES; each bin holds its lower edge, and the last is open."""
    return [int(n) for n in np.histogram(weights, [*WEIGHT_EDGES, np.inf])[0]]


def mask_iou(first: Array, second: Array) -> NDArray[np.float64]:
    """Give the IoU f64[N,M] of two sets of masks, bool[N,H,W] and bool[M,H,W] with N, M >= 1; 0 for two empty ones."""
    result: NDArray[np.float64] = rle.iou(_encode(first), _encode(second), [0] * len(second))
    return np.nan_to_num(result)


def _encode(masks: Array) -> list[dict[str, object]]:
    code: list[dict[str, object]] = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return code


def _match(iou: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the IoU of each row with the column it takes, or 0: greedily by falling score, equal ones in order."""
    free, matched = iou.copy(), np.zeros(len(iou))
    for row in np.argsort(-scores, kind="stable"):
        column = int(free[row].argmax())
        if free[row, column] >= RIGHT:
            matched[row] = free[row, column]
            free[:, column] = 0
    return matched


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
