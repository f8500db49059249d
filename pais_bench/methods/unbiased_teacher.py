"""Learn classes and masks, but no boxes, from confident detections, with a focal class loss.

Unbiased Teacher [ICLR 2021, arXiv 2102.09480].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filter and the weight, as published."""

    score_threshold: float = Field(default=0.7, ge=0, le=1)
    unlabelled_weight: float = Field(default=4.0, ge=0)


class Method(MethodBase):
    """Keep detections above a high threshold. The burn-in of 2,000 steps and the EMA of 0.9996 are training keys."""

    options: Options
    term_weights = {"box": 0.0, "proposal_box": 0.0}
    network_options = {"focal_gamma": 1.5}

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above the threshold."""
        return detections.scores > self.options.score_threshold
