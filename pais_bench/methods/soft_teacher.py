"""What if the teacher also judges what is background, and how steady its boxes are? Soft Teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.types import Instances, Score, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(Frozen):
    """Set the filters, the jitter and the weight [arXiv 2106.09018; paper.md 7]."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    foreground_threshold: float = Field(default=0.9, ge=0, le=1)
    """Class and mask are learnt from what is scored above."""
    jitters: int = Field(default=10, ge=2)
    jitter: float = Field(default=0.06, gt=0)
    """Standard deviation of a box coordinate's jitter, as a part of the box's size."""
    variance_threshold: float = Field(default=0.02, ge=0)
    """Boxes are learnt whose refined jitters deviate less, as a part of the box's size."""
    unlabelled_weight: float = Field(default=4.0, ge=0)


class Method:
    """Learn the class from sure boxes, the box from steady ones, and weigh background by the teacher's own belief."""

    unlabelled = True
    term_weights: Mapping[str, float] = {"quality": 0.0, "semantic": 0.0}

    def __init__(self, options: Options) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def weigh(self, teacher: Instances) -> Targets:
        """Keep scores strictly above the first threshold; above the second one class and mask count."""
        kept = teacher[teacher.scores > self.options.score_threshold]
        sure = (kept.scores > self.options.foreground_threshold).to(kept.scores)
        return Targets(kept, class_weight=sure, mask_weight=sure, box_weight=kept.scores.new_ones(len(kept)))

    def weigh_scored(self, teacher: Instances, score: Score) -> Targets:
        """Weigh as `weigh` does, and let the teacher's second look set box_weight and background."""
        first = self.weigh(teacher)
        steady = first.box_weight
        if len(steady):
            steady = (self._deviation(first.instances, score) < self.options.variance_threshold).to(steady)
        return replace(first, box_weight=steady, background=lambda boxes: score(boxes)[0][:, 0])

    def _deviation(self, kept: Instances, score: Score) -> Tensor:
        """Give f32[K]: the standard deviation of each box's refined jitters over its size, mean of 4 coordinates."""
        boxes, labels, times = kept.boxes, kept.labels, self.options.jitters
        size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        jittered = boxes + boxes.new_empty(times, *boxes.shape).normal_() * self.options.jitter * size
        refined = score(jittered.reshape(-1, 4))[1]
        own = refined[range(len(refined)), labels.repeat(times)].reshape(jittered.shape)
        return (own.std(0) / size.clamp(min=1e-6)).mean(1)
