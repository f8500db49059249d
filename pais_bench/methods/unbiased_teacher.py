"""What if pseudo-labels teach classes only, against the pull of the frequent ones? Unbiased Teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set the filter and the weight [arXiv 2102.09480; paper.md 7]."""

    score_threshold: float = Field(default=0.7, ge=0, le=1)
    unlabelled_weight: float = Field(default=4.0, ge=0)


class Method:
    """Trust what is scored above a high threshold, learn no box from it, and use a focal class loss everywhere.

    Its burn-in of 2,000 steps and EMA of 0.9996 are keys of a study's training.
    """

    unlabelled = True
    term_weights: Mapping[str, float] = {"box": 0.0, "proposal_box": 0.0, "quality": 0.0, "semantic": 0.0}
    network: Mapping[str, Any] = {"focal_gamma": 1.5}

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above the threshold; every weight is 1."""
        return Targets.of_truth(teacher[teacher.scores > self.options.score_threshold])
