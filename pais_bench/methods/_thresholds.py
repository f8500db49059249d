"""How high must a class's score be for the teacher to find as many objects as there are? One threshold per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES = tuple(round(0.1 + 0.01 * step, 2) for step in range(91))


def matched_frequencies(seen: Sequence[Instances], truth: Sequence[Instances], classes: int) -> list[float]:
    """Give for each class the threshold that keeps most nearly as many per image as the labelled images have.

    seen are a teacher's predictions on unlabelled images, truth the labels of labelled ones. Of equally good thresholds
    the lowest counts; candidates are 0.10, 0.11, ..., 1.00 [Noisy Boundaries' release; paper.md 7].
    """
    return [_threshold(_of_class(seen, label), len(seen), truth, label) for label in range(classes)]


def above(instances: Instances, thresholds: Sequence[float]) -> Tensor:
    """Say bool[N] whose score is strictly above the threshold of its class."""
    return instances.scores > instances.scores.new_tensor(thresholds)[instances.labels]


def _of_class(seen: Sequence[Instances], label: int) -> list[float]:
    return [score for one in seen for score in one.scores[one.labels == label].tolist()]


def _threshold(scores: Sequence[float], images: int, truth: Sequence[Instances], label: int) -> float:
    wanted = sum(int((one.labels == label).sum()) for one in truth) / max(len(truth), 1)
    return min(CANDIDATES, key=lambda t: abs(sum(score > t for score in scores) / max(images, 1) - wanted))
