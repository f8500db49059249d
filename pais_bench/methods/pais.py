"""Weight pseudo-labels instead of filtering them: the class loss by the class score, the mask loss by the mask IoU.

    L_u = Score^alpha L_class + IoU^beta L_mask          [PAIS, ICCV 2023, arXiv 2308.05359, figure 2]

The defaults are the constants of the released K-Net configuration: w_class = 12 min(s, 0.5)^4 and w_mask = 2.5 u^4,
where s is the class score and u the mask IoU that the network predicts. The figure's bare powers are
class_scale = mask_scale = class_cap = background = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set every constant of the dynamic aligning loss (docs/explanation/methods.md)."""

    score_threshold: float = Field(default=0.35, ge=0, le=1)
    mask_iou_threshold: float = Field(default=0.30, ge=0, le=1)
    alpha: float = Field(default=4.0, ge=0)
    beta: float = Field(default=4.0, ge=0)
    class_scale: float = Field(default=12.0, ge=0)
    class_cap: float = Field(default=0.5, gt=0, le=1)
    """Scores count at most this much: with 12 * 0.5^4 the class weight saturates at 0.75."""
    mask_scale: float = Field(default=2.5, ge=0)
    """With 2.5 u^4 the mask weight is 1 at u = 0.795."""
    background: float = Field(default=0.35**2, ge=0)
    """Weight of what is unmatched: it may be an object that the filter dropped."""


class Method(MethodBase):
    """Keep detections above two low thresholds, and weight them by class score and predicted mask IoU."""

    options: Options

    def keep(self, detections: Instances) -> Tensor:
        """Keep score and mask IoU strictly above their thresholds."""
        o = self.options
        return (detections.scores > o.score_threshold) & (detections.mask_iou > o.mask_iou_threshold)

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight class and mask by the powers of score and mask IoU, and the box 1."""
        o = self.options
        return Targets(
            detections,
            class_weight=o.class_scale * detections.scores.clamp(0, o.class_cap) ** o.alpha,
            mask_weight=o.mask_scale * detections.mask_iou**o.beta,
            box_weight=detections.scores.new_ones(len(detections)),
            background=o.background,
        )
