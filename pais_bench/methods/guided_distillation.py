"""Take confident pseudo-labels from a trained, frozen teacher first, and from the student's EMA later.

Guided Distillation [arXiv 2308.02668]; the constants are those of its release, which the paper has in part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filter, the weight and the guided burn-in."""

    unlabelled_weight: float = Field(default=2.0, ge=0)
    score_threshold: float = Field(default=0.7, ge=0, le=1)
    pixels: int = Field(default=80, ge=0)
    """Masks of at most so many pixels of the view are dropped: the release's 5 cells of a mask at stride 4."""
    guided_steps: int = Field(default=50_000, ge=0)
    """Steps in which the pretrained teacher gives the pseudo-labels; then the student's EMA does."""


class Method(MethodBase):
    """Keep confident detections with masks that are not tiny."""

    options: Options
    needs_pretrained_teacher = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.pretrained_teacher_steps = options.guided_steps

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above the threshold."""
        return detections.scores > self.options.score_threshold

    def assign_weights(self, detections: Instances) -> Targets:
        """Drop masks of at most `pixels` pixels; every weight is 1."""
        return Targets.unweighted(detections[detections.masks.flatten(1).sum(1) > self.options.pixels])
