"""Take pseudo-labels from a trained, frozen teacher first, and from the student's EMA later.

Guided Distillation [arXiv 2308.02668].
"""

from __future__ import annotations

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances, Targets


class Options(MethodOptions):
    """Set the filter and the guided burn-in."""

    score_threshold: float = Field(default=0.7, ge=0, le=1)
    pixels: int = Field(default=5, ge=0)
    """Masks of at most so many pixels are dropped."""
    guided_steps: int = Field(default=50_000, ge=0)
    """Steps in which the pretrained teacher gives the pseudo-labels; then the student's EMA does."""


class Method(MethodBase):
    """Keep confident detections with masks that are not tiny."""

    needs_pretrained_teacher = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.options, self.pretrained_teacher_steps = options, options.guided_steps

    def assign_weights(self, detections: Instances) -> Targets:
        """Keep scores and areas strictly above their thresholds; every weight is 1."""
        area = detections.masks.flatten(1).sum(1)
        kept = (detections.scores > self.options.score_threshold) & (area > self.options.pixels)
        return Targets.unweighted(detections[kept])
