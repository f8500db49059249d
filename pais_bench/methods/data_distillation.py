"""What if a finished teacher labels everything once? Data Distillation, with one threshold per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.methods._thresholds import above, matched_frequencies
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set how the thresholds are found [arXiv 1712.04440; paper.md 7]."""

    calibration_images: int = Field(default=200, ge=1)
    """Unlabelled images on which the teacher's objects per class are counted."""
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method:
    """Trust what a trained, frozen teacher scores above its class's threshold, from the first step to the last."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}
    trained_teacher = True
    guided_steps = math.inf

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight, self.calibration_images = options.unlabelled_weight, options.calibration_images
        self.thresholds: Sequence[float] = ()

    def calibrate(self, seen: Sequence[Instances], truth: Sequence[Instances], classes: int) -> None:
        """Set the thresholds such that the teacher finds as many objects per image and class as are labelled."""
        self.thresholds = matched_frequencies(seen, truth, classes)

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above the threshold of their class; every weight is 1. Uncalibrated, all are kept."""
        return Targets.of_truth(teacher[above(teacher, self.thresholds)] if self.thresholds else teacher)
