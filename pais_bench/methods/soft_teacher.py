"""Weight background by the teacher's own belief, and learn boxes only where its refinement is steady.

Soft Teacher [ICCV 2021, arXiv 2106.09018].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import BoxScorer, Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filters, the jitter and the weight, as published."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    foreground_threshold: float = Field(default=0.9, ge=0, le=1)
    """Class and mask are learnt from detections scored above it."""
    jitters: int = Field(default=10, ge=2)
    jitter: float = Field(default=0.06, gt=0)
    """Standard deviation of a box coordinate's jitter, relative to the size of the box."""
    variance_threshold: float = Field(default=0.02, ge=0)
    """Boxes are learnt whose refined jitters deviate less, relative to the size of the box."""
    unlabelled_weight: float = Field(default=4.0, ge=0)


@dataclass(frozen=True)
class BackgroundProbability:
    """Weight an unmatched box by the probability that the teacher gives to background."""

    scorer: BoxScorer

    def __call__(self, boxes: Tensor) -> Tensor:
        """Map boxes f32[n,4] of the view to weights f32[n] in 0..1."""
        return self.scorer(boxes)[0][:, 0]


class Method(MethodBase):
    """Learn the class from confident boxes, the box from steady ones, and the background as the teacher sees it."""

    options: Options
    needs_box_scorer = True

    def keep(self, detections: Instances) -> Tensor:
        """Keep scores strictly above the first threshold."""
        return detections.scores > self.options.score_threshold

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight class and mask 1 where the score is strictly above the second threshold, else 0; boxes 1."""
        scores = detections.scores
        confident = (scores > self.options.foreground_threshold).to(scores)
        return Targets(detections, confident, confident, box_weight=scores.new_ones(len(detections)))

    def assign_weights_with_scorer(self, detections: Instances, scorer: BoxScorer) -> Targets:
        """Add box weights by the steadiness of refined jitters, and background weights by the teacher."""
        targets = self.assign_weights(detections)
        steady = targets.box_weight
        if len(steady):
            steady = (self._deviation(targets.instances, scorer) < self.options.variance_threshold).to(steady)
        return replace(targets, box_weight=steady, background=BackgroundProbability(scorer))

    def _deviation(self, kept: Instances, scorer: BoxScorer) -> Tensor:
        """Return f32[K]: standard deviation of each box's refined jitters over its size, mean of 4 coordinates."""
        boxes, labels, times = kept.boxes, kept.labels, self.options.jitters
        size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        jittered = boxes + boxes.new_empty(times, *boxes.shape).normal_() * self.options.jitter * size
        refined = scorer(jittered.reshape(-1, 4))[1]
        of_label = labels.repeat(times)[:, None, None].expand(-1, 1, 4)
        own_class = refined.gather(1, of_label).reshape(jittered.shape)
        return (own_class.std(0) / size.clamp(min=1e-6)).mean(1)
