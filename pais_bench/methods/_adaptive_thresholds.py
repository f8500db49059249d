"""Filter detections by two thresholds, which are fixed or follow the mean qualities of each class's detections.

The thresholds of a class start between two values, by its share of the labels, and move to the mean of all its
detections of an image, kept or not [PL-DC, arXiv 2505.11075]. Methods that filter so derive from AdaptiveThresholds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor

DECAY = 0.9996
"""What a threshold keeps of itself at an image with detections of its class."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[float, float]


class AdaptiveThresholds(MethodBase):
    """Keep what reaches the thresholds of two qualities.

    thresholds f32[2,C], None where they are fixed | seen f32[3,C]: of the images of this step, sums of their mean
    qualities, and the number of those with detections of the class.
    """

    def __init__(self, options: MethodOptions, most: Pair, least: Pair | None) -> None:
        """Set the thresholds: most, or between least, without labels, and most, with all labels."""
        super().__init__(options)
        self.most, self.least = most, least
        self.calibration_images = None if least is None else 0
        self.thresholds: Tensor | None = None

    @abstractmethod
    def qualities(self, detections: Instances) -> tuple[Tensor, Tensor]:
        """Return two values f32[N] in 0..1 of each detection."""

    def prepare(
        self, detections: Sequence[Instances], ground_truth: Sequence[Instances], class_names: Sequence[str]
    ) -> None:
        """Start thresholds that are not fixed from each class's share of the labels."""
        if self.least is None:
            return
        labels = [label for image in ground_truth for label in image.labels.tolist()]
        shares = [labels.count(label) / max(len(labels), 1) for label in range(len(class_names))]
        rows = [
            [low + (high - low) * share for share in shares] for low, high in zip(self.least, self.most, strict=True)
        ]
        self.thresholds = ground_truth[0].scores.new_tensor(rows)
        self.seen = self.thresholds.new_zeros((3, len(class_names)))

    def keep(self, detections: Instances) -> Tensor:
        """Keep both qualities at least at their thresholds; note those of all detections for the end of the step."""
        first, second = self.qualities(detections)
        if self.thresholds is None:
            return (first >= self.most[0]) & (second >= self.most[1])
        self.thresholds = self.thresholds.to(first)
        self._note_qualities(detections.labels, first, second)
        return (first >= self.thresholds[0, detections.labels]) & (second >= self.thresholds[1, detections.labels])

    def _note_qualities(self, labels: Tensor, first: Tensor, second: Tensor) -> None:
        """Add the mean qualities of each class's detections of an image to those that were seen in this step."""
        self.seen = self.seen.to(first)
        classes = self.seen[0].new_ones(self.seen.shape[1]).cumsum(0) - 1
        of_class = (labels[:, None] == classes).to(first)
        number = of_class.sum(0)
        for row, values in zip(self.seen, (first, second, first.new_ones(len(first))), strict=True):
            row += (values[:, None] * of_class).sum(0) / number.clamp(min=1)

    def end_step(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Move each class's thresholds, once for every image, to the mean over the images of the step.

        The release moves them image by image, which is the same up to 1e-7.
        """
        if self.thresholds is None:
            return
        *sums, images = sum_over_ranks(self.seen)
        share = 1 - DECAY**images
        for row, total in zip(self.thresholds, sums, strict=True):
            row.lerp_(total / images.clamp(min=1), share)
        self.seen.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the thresholds, if they are not fixed."""
        return {} if self.thresholds is None else {"thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue with the thresholds of a checkpoint."""
        self.thresholds = state.get("thresholds", self.thresholds)
