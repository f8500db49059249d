"""Train on the labels that a trained, frozen teacher gives to all unlabelled images, with one threshold per class.

A class's threshold is the one above which the teacher finds as many objects per image as are labelled
[Data Distillation, arXiv 1712.04440].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES = tuple(round(0.1 + 0.01 * step, 2) for step in range(91))


class Options(MethodOptions):
    """Set how the thresholds are fitted."""

    calibration_images: int = Field(default=200, ge=1)
    """Unlabelled images on which the teacher's objects per class are counted."""


class Method(MethodBase):
    """Keep what a pretrained, frozen teacher scores above its class's threshold, from the first step to the last."""

    needs_pretrained_teacher = True
    pretrained_teacher_steps = math.inf

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.calibration_images = options.calibration_images
        self.thresholds: Tensor | None = None

    def prepare(
        self, detections: Sequence[Instances], ground_truth: Sequence[Instances], class_names: Sequence[str]
    ) -> None:
        """Fit the thresholds f32[C], on the device of the detections; without detections there are none."""
        if detections:
            fitted = match_frequencies(detections, ground_truth, len(class_names))
            self.thresholds = detections[0].scores.new_tensor(fitted)

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above the threshold of their class; before the fit, all."""
        if self.thresholds is None:
            return super().keep(detections)
        return detections.scores > self.thresholds[detections.labels]


def match_frequencies(
    detections: Sequence[Instances], ground_truth: Sequence[Instances], num_classes: int
) -> list[float]:
    """Return for each class the threshold that keeps most nearly as many per image as the labelled images have.

    detections are a teacher's on unlabelled images, ground_truth the labels of labelled ones. Of equally good
    thresholds the lowest counts; candidates are 0.10, 0.11, ..., 1.00 [released code of Noisy Boundaries, CVPR 2022].
    """
    return [
        _fit_threshold(_scores_of_class(detections, label), len(detections), ground_truth, label)
        for label in range(num_classes)
    ]


def _scores_of_class(detections: Sequence[Instances], label: int) -> list[float]:
    return [score for image in detections for score in image.scores[image.labels == label].tolist()]


def _fit_threshold(scores: Sequence[float], images: int, ground_truth: Sequence[Instances], label: int) -> float:
    wanted = sum(int((image.labels == label).sum()) for image in ground_truth) / max(len(ground_truth), 1)
    return min(CANDIDATES, key=lambda t: abs(sum(score > t for score in scores) / max(images, 1) - wanted))
