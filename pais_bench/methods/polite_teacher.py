"""Filter class and mask apart: confident detections teach the class, those with good masks also the mask.

Polite Teacher [arXiv 2211.03850].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the two filters; no code was published and these values are not verified."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    mask_iou_threshold: float = Field(default=0.7, ge=0, le=1)


class Method(MethodBase):
    """Keep detections above the score threshold; of these, masks count whose predicted IoU is above the other."""

    options: Options

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above their threshold."""
        return detections.scores > self.options.score_threshold

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight masks 1 whose predicted IoU is strictly above its threshold, others 0; class and box weights are 1."""
        one = detections.scores.new_ones(len(detections))
        good = (detections.mask_iou > self.options.mask_iou_threshold).to(one)
        return Targets(detections, class_weight=one, mask_weight=good, box_weight=one)
