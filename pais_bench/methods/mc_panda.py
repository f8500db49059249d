"""Weight a mask by the share of its pixels that are certain, and divide by the sum of weights: MC-PanDA [ECCV 2024]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods._soft_predictions import class_probability
from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filter and the certainty of a pixel."""

    score_threshold: float = Field(default=0.8, ge=0, le=1)
    """Not verified: MC-PanDA's pseudo-labels come from a panoptic merge, of which this is Mask2Former's threshold."""
    certainty: float = Field(default=0.99, ge=0, le=1)
    """A pixel is certain where the probability of the class times that of the mask is above it."""
    pixels: int = Field(default=24, ge=0)
    """Masks of at most so many pixels are dropped."""


class Method(MethodBase):
    """Keep confident detections; the mask loss of each counts as much as the share of its mask that is certain."""

    options: Options
    needs_soft_predictions = True
    normalizes_mask_weights = True

    def keep(self, detections: Instances) -> Tensor:
        """Keep probabilities of the class strictly above the threshold."""
        return class_probability(detections) > self.options.score_threshold

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight a mask by the share of its pixels that are certain; class and box weights are 1."""
        kept = detections[detections.masks.flatten(1).sum(1) > self.options.pixels]
        assert kept.soft_masks is not None
        soft = kept.soft_masks.values.flatten(1)
        certain = soft * class_probability(kept)[:, None] > self.options.certainty
        share = (certain & (soft > 0.5)).sum(1) / (soft > 0.5).sum(1).clamp(min=1)
        return replace(Targets.unweighted(kept), mask_weight=share)
