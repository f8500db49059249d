"""Check evaluation/pseudo_labels.py on cases that are counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pais_bench.evaluation.pseudo_labels import (
    WEIGHT_EDGES,
    Counts,
    Masks,
    calibration,
    histogram,
    match,
    pairwise_mask_iou,
)


@dataclass(frozen=True)
class Rows:
    """Hold instances as (label, score, x0, x1): each covers the columns x0..x1 of an image of one row."""

    rows: Sequence[tuple[int, float, int, int]]

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([row[0] for row in self.rows], dtype=np.int64)

    @property
    def scores(self) -> NDArray[np.float32]:
        return np.array([row[1] for row in self.rows], dtype=np.float32)

    @property
    def masks(self) -> NDArray[np.bool_]:
        masks = np.zeros((len(self.rows), 1, 40), dtype=bool)
        for mask, (_, _, start, end) in zip(masks, self.rows, strict=True):
            mask[0, start:end] = True
        return masks


def compare(*pairs: tuple[Masks, Masks]) -> Counts:
    counts = Counts()
    for kept, ground_truth in pairs:
        counts.add(match(kept, ground_truth), len(np.asarray(ground_truth.labels)))
    return counts


def summary(kept: Masks, ground_truth: Masks) -> dict[str, float | None]:
    return compare((kept, ground_truth)).summary()


GROUND_TRUTH = Rows([(0, 1, 0, 10), (1, 1, 20, 30)])


def test_perfect_pseudo_labels() -> None:
    assert summary(GROUND_TRUTH, GROUND_TRUTH) == {
        "kept_per_image": 2,
        "precision": 1,
        "recall": 1,
        "matched_iou": 1,
        "best_iou": 1,
        "class_accuracy": 1,
    }


def test_mask_iou_by_hand() -> None:
    kept = Rows([(0, 1, 5, 10), (0, 1, 8, 24), (0, 1, 3, 3)])
    assert pairwise_mask_iou(kept.masks, GROUND_TRUTH.masks) == pytest.approx(
        np.array([[1 / 2, 0], [2 / 24, 4 / 22], [0, 0]])
    )
    empty = Rows([(0, 1, 3, 3)]).masks
    assert pairwise_mask_iou(empty, empty) == 0


def test_another_class_overlaps_without_a_match() -> None:
    got = summary(Rows([(1, 0.9, 0, 10), (1, 0.8, 20, 28)]), GROUND_TRUTH)
    assert got["precision"] == got["recall"] == got["class_accuracy"] == 0.5
    assert got["matched_iou"] == pytest.approx(0.8)
    assert got["best_iou"] == pytest.approx(0.9)


def test_an_object_is_matched_once_and_by_the_higher_score() -> None:
    got = compare((Rows([(0, 0.6, 0, 10), (0, 0.9, 0, 6)]), GROUND_TRUTH))
    assert got.matched == 1
    assert got.matched_iou == pytest.approx(0.6)
    assert got.summary()["precision"] == 0.5
    assert got.summary()["best_iou"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("kept", "ground_truth", "matched"),
    [
        ([(0, 0.9, 0, 10), (0, 0.8, 0, 10)], [(0, 1, 0, 10), (0, 1, 1, 10)], 2),  # the second takes the other
        ([(0, 1, 0, 5)], [(0, 1, 0, 10)], 1),
        ([(0, 1, 0, 4)], [(0, 1, 0, 10)], 0),  # less than half an overlap
    ],
)
def test_matches_by_hand(kept: list[Any], ground_truth: list[Any], matched: int) -> None:
    assert compare((Rows(kept), Rows(ground_truth))).matched == matched


@pytest.mark.parametrize(
    ("kept", "ground_truth", "precision", "recall"),
    [
        (Rows([]), GROUND_TRUTH, None, 0),
        (GROUND_TRUTH, Rows([]), 0, None),
        (Rows([]), Rows([]), None, None),
        (Rows([(0, 1, 35, 40)]), GROUND_TRUTH, 0, 0),
    ],
)
def test_without_an_overlap(kept: Rows, ground_truth: Rows, precision: float | None, recall: float | None) -> None:
    got = summary(kept, ground_truth)
    assert (got["precision"], got["recall"], got["class_accuracy"]) == (precision, recall, None)
    assert got["matched_iou"] is None and got["best_iou"] == (0 if kept.rows else None)
    assert got["kept_per_image"] == len(kept.rows)


def test_counts_add_over_images() -> None:
    assert set(compare().summary().values()) == {None}
    got = compare((GROUND_TRUTH, GROUND_TRUTH), (Rows([(0, 0.9, 0, 6)]), GROUND_TRUTH), (Rows([]), Rows([]))).summary()
    assert got["kept_per_image"] == 1
    assert got["precision"] == 1
    assert got["recall"] == 0.75
    assert got["matched_iou"] == pytest.approx((1 + 1 + 0.6) / 3)


def test_tensors_are_accepted() -> None:
    torch = pytest.importorskip("torch")
    names = ("labels", "masks", "scores")
    tensors = SimpleNamespace(**{name: torch.from_numpy(getattr(GROUND_TRUTH, name)) for name in names})
    assert compare((tensors, GROUND_TRUTH)) == compare((GROUND_TRUTH, GROUND_TRUTH))


def test_the_matches_of_each_pseudo_label() -> None:
    got = match(Rows([(0, 0.9, 0, 6), (1, 0.8, 0, 5), (1, 0.7, 35, 40)]), GROUND_TRUTH)
    assert got.matched_iou == pytest.approx([0.6, 0, 0])
    assert got.best_iou == pytest.approx([0.6, 0.5, 0])
    assert list(got.same_class) == [True, False, False]


def test_calibration_by_hand() -> None:
    got = calibration(np.array([0.0, 0.61, 0.69, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert got[0] == [1, 0, 0]
    assert got[6] == [2, 0.65, 0.5]
    assert got[9] == [1, 1, 1]
    assert sum(count for count, _, _ in got) == 4


def test_weights_between_edges() -> None:
    assert histogram(np.array([0, 0.24, 0.25, 2.4, 2.5, 30])) == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert WEIGHT_EDGES[-1] == 2.5
    assert sum(histogram(np.zeros(0))) == 0
