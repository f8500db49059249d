"""Train on the labelled images only: the baseline of every gain."""

from __future__ import annotations

from pais_bench.methods.base import MethodBase
from pais_bench.study.base import StrictConfig
from pais_bench.types import Instances, Targets


class Options(StrictConfig):
    """Accept no options."""


class Method(MethodBase):
    """Ignore the unlabelled images; the teacher is the EMA of the student."""

    uses_unlabelled = False

    def __init__(self, options: Options) -> None:
        self.unlabelled_weight = 0.0

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight every detection 1; never called while training."""
        return Targets.unweighted(detections)
