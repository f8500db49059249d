"""Train on hard pseudo-labels of an EMA teacher, filtered by one threshold on the class score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filter; the defaults are those of "PAIS without DALoss" in the PAIS release."""

    score_threshold: float = Field(default=0.65, ge=0, le=1)
    unlabelled_weight: float = Field(default=0.5, ge=0)


class Method(MethodBase):
    """Keep what the teacher scores above the threshold, with weight 1 like a label [arXiv 1703.01780]."""

    options: Options

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above the threshold."""
        return detections.scores > self.options.score_threshold
