"""What do hard pseudo-labels give? A mean teacher with one fixed threshold on the class score."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set the filter; the defaults are the release's "PAIS without DALoss" [paper.md 2.1]."""

    score_threshold: float = Field(default=0.65, ge=0, le=1)
    unlabelled_weight: float = Field(default=0.5, ge=0)


class Method:
    """Keep what the teacher scores above the threshold, and trust it like a label [arXiv 1703.01780]."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above the threshold; every weight is 1."""
        return Targets.of_truth(teacher[teacher.scores > self.options.score_threshold])
