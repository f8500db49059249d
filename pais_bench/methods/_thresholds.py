"""How high must a class's score be for the teacher to find as many objects as there are? One threshold per class.

Methods whose teacher is trained before and frozen derive from FrequencyMatched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(Protocol):
    """Hold what such a method needs to know."""

    calibration_images: int
    unlabelled_weight: float


class FrequencyMatched:
    """Trust what a trained, frozen teacher scores above its class's threshold, from the first step to the last."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}
    trained_teacher = True
    guided_steps = math.inf

    def __init__(self, options: Options) -> None:
        self.unlabelled_weight, self.calibration_images = options.unlabelled_weight, options.calibration_images
        self.thresholds: Sequence[float] = ()

    def calibrate(self, seen: Sequence[Instances], truth: Sequence[Instances], classes: int) -> None:
        """Set the thresholds such that the teacher finds as many objects per image and class as are labelled."""
        self.thresholds = matched_frequencies(seen, truth, classes)

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above the threshold of their class; every weight is 1. Uncalibrated, all are kept."""
        return Targets.of_truth(teacher[above(teacher, self.thresholds)] if self.thresholds else teacher)


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
