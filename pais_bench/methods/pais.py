"""What is a pseudo-label worth? PAIS: keep loosely, weigh the class by its score and the mask by its predicted IoU.

    L_u = Score^alpha L_class + IoU^beta L_mask          [ICCV 2023, arXiv 2308.05359; figure, paper.md 3.1]

The defaults are the constants of the release's K-Net: w_class = 12 min(s, 0.5)^4 and w_mask = 2.5 u^4. The figure's
bare powers are class_scale = mask_scale = class_cap = background = 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set every constant of the dynamic aligning loss [paper.md 2.1, 3.1]."""

    score_threshold: float = Field(default=0.35, ge=0, le=1)
    quality_threshold: float = Field(default=0.30, ge=0, le=1)
    alpha: float = Field(default=4.0, ge=0)
    beta: float = Field(default=4.0, ge=0)
    class_scale: float = Field(default=12.0, ge=0)
    class_cap: float = Field(default=0.5, gt=0, le=1)
    """Scores count at most this much: with 12 * 0.5^4 the class weight saturates at 0.75."""
    mask_scale: float = Field(default=2.5, ge=0)
    """With 2.5 u^4 the mask weight is 1 at u = 0.795."""
    background: float = Field(default=0.35**2, ge=0)
    """Weight of what no pseudo-label claims: it may be an object that the filter dropped."""
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method:
    """Re-weigh pseudo-labels instead of filtering them."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores and quality strictly above their thresholds; weigh class and mask by their powers."""
        o = self.options
        kept = teacher[(teacher.scores > o.score_threshold) & (teacher.quality > o.quality_threshold)]
        return Targets(
            kept,
            class_weight=o.class_scale * kept.scores.clamp(0, o.class_cap) ** o.alpha,
            mask_weight=o.mask_scale * kept.quality**o.beta,
            box_weight=kept.scores.new_ones(len(kept)),
            background=o.background,
        )
