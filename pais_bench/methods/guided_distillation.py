"""What if a student first listens to a teacher that has finished school? Guided Distillation."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set the filter and the guided burn-in [arXiv 2308.02668; paper.md 7]."""

    score_threshold: float = Field(default=0.7, ge=0, le=1)
    pixels: int = Field(default=5, ge=0)
    """Masks of at most so many pixels are dropped."""
    guided_steps: int = Field(default=50_000, ge=0)
    """Steps in which the trained teacher gives the pseudo-labels; then the student's running average does."""
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method:
    """Take pseudo-labels from a trained, frozen teacher first, and from the student's running average later."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}
    trained_teacher = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight, self.guided_steps = options.unlabelled_weight, options.guided_steps

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores and areas strictly above their thresholds; every weight is 1."""
        area = teacher.masks.flatten(1).sum(1)
        kept = (teacher.scores > self.options.score_threshold) & (area > self.options.pixels)
        return Targets.of_truth(teacher[kept])
