"""Does metrics/pseudo_labels.py count hand-made cases as a hand does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pais_bench.metrics.pseudo_labels import WEIGHT_EDGES, Counts, Masks, calibration, histogram, judge, mask_iou


@dataclass(frozen=True)
class Rows:
    """Say each instance by its label, its score and the columns x0..x1 that it covers of a picture of one row."""

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
    for kept, truth in pairs:
        counts.add(judge(kept, truth), len(np.asarray(truth.labels)))
    return counts


def summary(kept: Masks, truth: Masks) -> dict[str, float | None]:
    return compare((kept, truth)).summary()


TRUTH = Rows([(0, 1, 0, 10), (1, 1, 20, 30)])


def test_all_right() -> None:
    assert summary(TRUTH, TRUTH) == {
        "kept_per_image": 2,
        "precision": 1,
        "recall": 1,
        "right_iou": 1,
        "best_iou": 1,
        "class_accuracy": 1,
    }


def test_mask_iou_by_hand() -> None:
    kept = Rows([(0, 1, 5, 10), (0, 1, 8, 24), (0, 1, 3, 3)])
    assert mask_iou(kept.masks, TRUTH.masks) == pytest.approx(np.array([[1 / 2, 0], [2 / 24, 4 / 22], [0, 0]]))
    empty = Rows([(0, 1, 3, 3)]).masks
    assert mask_iou(empty, empty) == 0


def test_wrong_class_is_not_right_but_overlaps() -> None:
    got = summary(Rows([(1, 0.9, 0, 10), (1, 0.8, 20, 28)]), TRUTH)
    assert got["precision"] == got["recall"] == got["class_accuracy"] == 0.5
    assert got["right_iou"] == pytest.approx(0.8)
    assert got["best_iou"] == pytest.approx(0.9)


def test_a_truth_is_matched_once_and_by_the_higher_score() -> None:
    got = compare((Rows([(0, 0.6, 0, 10), (0, 0.9, 0, 6)]), TRUTH))
    assert got.right == 1
    assert got.right_iou == pytest.approx(0.6)
    assert got.summary()["precision"] == 0.5
    assert got.summary()["best_iou"] == pytest.approx(0.8)


def test_the_second_best_truth_is_taken_when_the_best_is_gone() -> None:
    truth = Rows([(0, 1, 0, 10), (0, 1, 1, 10)])
    assert compare((Rows([(0, 0.9, 0, 10), (0, 0.8, 0, 10)]), truth)).right == 2


def test_half_an_overlap_is_right_and_less_is_not() -> None:
    truth = Rows([(0, 1, 0, 10)])
    assert compare((Rows([(0, 1, 0, 5)]), truth)).right == 1
    assert compare((Rows([(0, 1, 0, 4)]), truth)).right == 0


def test_no_overlap_has_no_class_accuracy() -> None:
    got = summary(Rows([(0, 1, 35, 40)]), TRUTH)
    assert (got["precision"], got["best_iou"], got["class_accuracy"], got["right_iou"]) == (0, 0, None, None)


@pytest.mark.parametrize(
    ("kept", "truth", "precision", "recall"),
    [(Rows([]), TRUTH, None, 0), (TRUTH, Rows([]), 0, None), (Rows([]), Rows([]), None, None)],
)
def test_empty_sides(kept: Rows, truth: Rows, precision: float | None, recall: float | None) -> None:
    got = summary(kept, truth)
    assert (got["precision"], got["recall"]) == (precision, recall)
    assert got["kept_per_image"] == len(kept.rows)


def test_counts_add_over_images() -> None:
    assert set(compare().summary().values()) == {None}
    got = compare((TRUTH, TRUTH), (Rows([(0, 0.9, 0, 6)]), TRUTH), (Rows([]), Rows([]))).summary()
    assert got["kept_per_image"] == 1
    assert got["precision"] == 1
    assert got["recall"] == 0.75
    assert got["right_iou"] == pytest.approx((1 + 1 + 0.6) / 3)


def test_tensors_are_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch")

    @dataclass(frozen=True)
    class Tensors:
        labels: object
        masks: object
        scores: object

    tensors = Tensors(*(torch.from_numpy(array) for array in (TRUTH.labels, TRUTH.masks, TRUTH.scores)))
    assert compare((tensors, TRUTH)) == compare((TRUTH, TRUTH))  # type: ignore[arg-type]


def test_a_verdict_tells_of_each_pseudo_label() -> None:
    got = judge(Rows([(0, 0.9, 0, 6), (1, 0.8, 0, 5), (1, 0.7, 35, 40)]), TRUTH)
    assert got.matched == pytest.approx([0.6, 0, 0])
    assert got.best == pytest.approx([0.6, 0.5, 0])
    assert list(got.agrees) == [True, False, False]


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
