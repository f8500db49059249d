"""What if class and mask have a filter each? Polite Teacher: sure boxes teach the class, good masks the mask."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets


class Options(Frozen):
    """Set the two filters [arXiv 2211.03850]; no code was published and these values are not verified."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    quality_threshold: float = Field(default=0.7, ge=0, le=1)
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method:
    """Keep what the teacher scores above one threshold; of that, masks count whose predicted IoU is above another."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above their threshold; a mask counts 1 or 0, class and box 1."""
        kept = teacher[teacher.scores > self.options.score_threshold]
        one = kept.scores.new_ones(len(kept))
        good = (kept.quality > self.options.quality_threshold).to(one)
        return Targets(kept, class_weight=one, mask_weight=good, box_weight=one)
