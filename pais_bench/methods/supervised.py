"""What do labels alone give? The baseline that every gain is measured from."""

from __future__ import annotations

from collections.abc import Mapping

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Have no options."""


class Method:
    """Train on the labelled images only; the teacher is the running average of the student."""

    unlabelled = False
    unlabelled_weight = 0.0
    term_weights: Mapping[str, float] = {}

    def __init__(self, options: Options) -> None:
        self.options = options

    def weigh(self, teacher: Instances) -> Targets:
        """Weigh every prediction 1; never asked while training."""
        return Targets.of_truth(teacher)
