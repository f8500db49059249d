"""Weight masks that SAM has refined by SAM's own estimate of their IoU, in PAIS's dynamic aligning loss.

No paper has tried it: it is PAIS with a better mask, and an estimate of its IoU that is not learnt from few labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods import pais
from pais_bench.methods._sam import SamRefinement, draw_points
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(pais.Options):
    """Set the constants of the dynamic aligning loss, and how SAM is asked."""

    sam: Path
    """Folder of SAM or SAM 2: config.json and model.safetensors."""
    points: int = Field(default=0, ge=0)
    """Points by which SAM is asked, drawn from the teacher's soft mask; 0: it is asked by the teacher's box."""
    keep_below: float = Field(default=0.0, ge=0, le=1)
    """The teacher's mask stays where its IoU with SAM's is less."""


class Method(SamRefinement, pais.Method):
    """Filter by score, refine masks by SAM, and then filter and weight by SAM's estimate as by the mask IoU."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.needs_soft_predictions = options.points > 0

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above their threshold: masks are judged when they are refined."""
        return detections.scores > self.options.score_threshold

    def refine(self, image: Tensor, detections: Instances, progress: float) -> Instances:
        """Take SAM's masks and its estimates of their IoU."""
        prompts = draw_points(detections, self.options.points) if self.options.points else detections.boxes
        return self.sam.refine(image, detections, prompts, self.options.keep_below)

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight those whose estimated IoU is strictly above its threshold."""
        return super().assign_weights(detections[detections.mask_iou > self.options.mask_iou_threshold])
