"""Measure pseudo-labels against held-out labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as rle

IOU_THRESHOLD = 0.5
"""The least mask IoU of a match."""
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
class PseudoLabelMatches:
    """Hold how the N pseudo-labels of one image agree with its objects.

    matched_iou f64[N]: mask IoU with the object of its class that it was matched with, 0 where there is none | best_iou
    f64[N]: mask IoU with the object, of any class, that it overlaps best | same_class bool[N]: overlaps that object,
    and has its class.
    """

    matched_iou: NDArray[np.float64]
    best_iou: NDArray[np.float64]
    same_class: NDArray[np.bool_]


@dataclass
class Counts:
    """Sum matches over images; every number of summary() is a ratio of two of these sums.

    kept: pseudo-labels | matched: those that match an object | matched_iou, best_iou: sums of PseudoLabelMatches |
    overlapping: pseudo-labels that overlap any object | same_class: those of them that have its class.
    """

    images: int = 0
    kept: int = 0
    objects: int = 0
    matched: int = 0
    matched_iou: float = 0.0
    best_iou: float = 0.0
    overlapping: int = 0
    same_class: int = 0

    def add(self, matches: PseudoLabelMatches, objects: int) -> None:
        """Add an image with this number of objects."""
        self.images += 1
        self.kept += len(matches.best_iou)
        self.objects += objects
        self.matched += int((matches.matched_iou > 0).sum())
        self.matched_iou += float(matches.matched_iou.sum())
        self.best_iou += float(matches.best_iou.sum())
        self.overlapping += int((matches.best_iou > 0).sum())
        self.same_class += int(matches.same_class.sum())

    def summary(self) -> dict[str, float | None]:
        """Return kept per image, and fractions 0..1: precision, recall, IoU and class accuracy; None for 0 / 0."""
        return {
            "kept_per_image": _ratio(self.kept, self.images),
            "precision": _ratio(self.matched, self.kept),
            "recall": _ratio(self.matched, self.objects),
            "matched_iou": _ratio(self.matched_iou, self.matched),
            "best_iou": _ratio(self.best_iou, self.kept),
            "class_accuracy": _ratio(self.same_class, self.overlapping),
        }


def match(pseudo_labels: Masks, ground_truth: Masks) -> PseudoLabelMatches:
    """Match one image's pseudo-labels with its objects, both in the same pixels; scores of the objects are not read.

    A pseudo-label matches an object of its class, not matched before, with mask IoU >= IOU_THRESHOLD: in the order of
    falling score, each the object that it overlaps best.
    """
    labels, gt_labels = np.asarray(pseudo_labels.labels), np.asarray(ground_truth.labels)
    if not len(labels) or not len(gt_labels):
        return PseudoLabelMatches(np.zeros(len(labels)), np.zeros(len(labels)), np.zeros(len(labels), dtype=bool))
    iou = pairwise_mask_iou(np.asarray(pseudo_labels.masks), np.asarray(ground_truth.masks))
    iou_of_class = np.where(labels[:, None] == gt_labels[None, :], iou, 0)
    best = iou.max(axis=1)
    same_class = (iou_of_class.max(axis=1) == best) & (best > 0)
    return PseudoLabelMatches(match_greedily(iou_of_class, np.asarray(pseudo_labels.scores)), best, same_class)


def calibration(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> list[list[float]]:
    """Return [count, mean predicted, mean measured] of each tenth of the range 0..1; [0, 0, 0] for an empty bin."""
    index = np.clip((predicted * 10).astype(int), 0, 9)
    count = np.bincount(index, minlength=10)
    means = (
        np.bincount(index, weights=values, minlength=10) / np.maximum(count, 1) for values in (predicted, measured)
    )
    return [[int(n), round(float(a), 4), round(float(b), 4)] for n, a, b in zip(count, *means, strict=True)]


def histogram(weights: NDArray[np.float64]) -> list[int]:
    """Count weights between WEIGHT_EDGES; each bin holds its lower edge, and the last is open."""
    return [int(n) for n in np.histogram(weights, [*WEIGHT_EDGES, np.inf])[0]]


def pairwise_mask_iou(first: Array, second: Array) -> NDArray[np.float64]:
    """Return the IoU f64[N,M] of masks bool[N,H,W] and bool[M,H,W] with N, M >= 1; 0 for two empty masks."""
    result: NDArray[np.float64] = rle.iou(_encode(first), _encode(second), [0] * len(second))
    return np.nan_to_num(result)


def _encode(masks: Array) -> list[dict[str, object]]:
    encoded: list[dict[str, object]] = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return encoded


def match_greedily(iou: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of each row with its column, or 0: by falling score the best free one from IOU_THRESHOLD on."""
    free, matched = iou.copy(), np.zeros(len(iou))
    for row in np.argsort(-scores, kind="stable"):
        column = int(free[row].argmax())
        if free[row, column] >= IOU_THRESHOLD:
            matched[row] = free[row, column]
            free[:, column] = 0
    return matched


def _ratio(numerator: float, denominator: int) -> float | None:
    return numerator / denominator if denominator else None
