"""Replace the masks of confident detections by those that SAM finds at three points of each: S4M [ICCV 2025].

arXiv 2504.05301; the constants are those of its release. Its structural distillation is left out: no network here
offers the features of its pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods import guided_distillation
from pais_bench.methods._sam import SamRefinement, draw_points
from pais_bench.methods._soft_predictions import class_probability
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(guided_distillation.Options):
    """Set the filter, the weight, the guided burn-in and SAM; the defaults are those of the release on COCO."""

    guided_steps: int = Field(default=25_000, ge=0)
    """Steps in which the pretrained teacher gives the pseudo-labels; then the student's EMA does."""
    sam: Path
    """Folder of SAM or SAM 2: config.json and model.safetensors."""
    points: int = Field(default=3, ge=1)
    """Points by which SAM is asked for a mask, drawn from the teacher's soft mask."""


class Method(SamRefinement, guided_distillation.Method):
    """Keep confident detections, refine their masks, and learn them with weight 1."""

    options: Options
    needs_soft_predictions = True

    def keep(self, detections: Instances) -> Tensor:
        """Keep classes more probable than the threshold, of soft masks that sum up to more than `pixels` pixels."""
        soft = detections.soft_masks
        assert soft is not None
        pixels = soft.values.mean((1, 2)) * (soft.boxes[:, 2:] - soft.boxes[:, :2]).prod(1)
        return (class_probability(detections) > self.options.score_threshold) & (pixels > self.options.pixels)

    def refine(self, image: Tensor, detections: Instances, progress: float) -> Instances:
        """Take SAM's mask at points of the teacher's mask, which are drawn; class and score stay."""
        return self.sam.refine(image, detections, draw_points(detections, self.options.points))

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight all 1: tiny masks were dropped before SAM was asked, and a small one of SAM's stays."""
        return Targets.unweighted(detections)
