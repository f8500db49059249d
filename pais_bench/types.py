"""What do methods, backends and the engine say to each other?

Dims: N instances, K of them kept, H W pixels of the view, C classes. Boxes are x0 y0 x1 y1 in pixels, with continuous
coordinates: the first pixel covers 0..1. Images are RGB float32 0..1, neither padded nor normalised. Labels are
0..C-1, without a background class. Nothing here imports torch: annotations are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, device

TERMS = ("objectness", "proposal_box", "class", "box", "mask", "dice", "quality", "semantic")
"""Every name that a loss may have; a backend emits a subset."""


class BenchError(Exception):
    """Report a fault of the input or the machine in one sentence: the culprit, then the remedy."""


class LeftOut(Exception):
    """Say in one sentence why a report has nothing to show of what was measured."""


@dataclass(frozen=True)
class Instances:
    """Hold the instances of one view.

    boxes f32[N,4] px | labels i64[N] 0..C-1 | masks bool[N,H,W] | scores f32[N] 0..1 | quality f32[N] 0..1, the
    predicted mask IoU. Ground truth has scores = quality = 1; a prediction is sorted by falling score.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    scores: Tensor
    quality: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Instances:
        """Select instances by a bool[N] or i64[K] index."""
        return Instances(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, where: device) -> Instances:
        """Move every tensor to a device."""
        return Instances(*(getattr(self, field.name).to(where) for field in fields(self)))


@dataclass(frozen=True)
class Targets:
    """Say what the student is to learn from one view, and how much each instance counts.

    class_weight, mask_weight, box_weight f32[K] >= 0 multiply the loss of whatever a network assigned to the
    instance: what it is, which pixels are its own, and where it is. background >= 0 multiplies the class loss of
    whatever was assigned to no instance; as a function it gives the weights f32[n] of boxes f32[n,4] of the view, for
    networks that have boxes. Ground truth has 1 everywhere. seed is what a network's draws about the view follow from;
    None leaves them to torch.
    """

    instances: Instances
    class_weight: Tensor
    mask_weight: Tensor
    box_weight: Tensor
    background: float | Callable[[Tensor], Tensor] = 1.0
    seed: int | None = None

    @staticmethod
    def of_truth(instances: Instances) -> Targets:
        """Weigh every instance 1."""
        one = instances.scores.new_ones(len(instances))
        return Targets(instances, class_weight=one, mask_weight=one, box_weight=one)


@dataclass(frozen=True)
class View:
    """Hold one augmented image f32[3,H,W] and the matrix f64[3,3] that takes original pixels to its pixels."""

    image: Tensor
    matrix: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Give (H, W) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Labelled:
    """Hold one labelled image; instances are in pixels of the view."""

    image_id: int
    view: View
    instances: Instances


@dataclass(frozen=True)
class Unlabelled:
    """Hold two views of one image whose labels the student must not see.

    truth, in pixels of the weak view, serves the diagnostics of the pseudo-labels only; None where there is none, and
    in steps that are not logged.
    """

    image_id: int
    weak: View
    strong: View
    truth: Instances | None


@dataclass(frozen=True)
class Batch:
    """Hold what one rank sees in one step."""

    step: int
    labelled: Sequence[Labelled]
    unlabelled: Sequence[Unlabelled]


Score = Callable[["Tensor"], "tuple[Tensor, Tensor]"]
"""Ask the teacher again about boxes f32[n,4] of the view: class probabilities f32[n,C+1], background first, and the
boxes f32[n,C,4] that it makes of them for each class."""


class Method(Protocol):
    """Decide what a teacher's prediction is worth: the only thing in which the methods differ.

    unlabelled says whether the unlabelled stream is used at all; unlabelled_weight >= 0 multiplies its whole loss and
    term_weights single terms of it (a missing term counts 1). A method may also have
        network             options that it sets of the network, by name
        trained_teacher     True: a study names a run whose network gives the pseudo-labels of the first `guided_steps`
        calibrate(seen, truth, classes)     asked once, with the trained teacher's predictions on `calibration_images`
                                            unlabelled images and the labels of the labelled ones
        weigh_scored(teacher, score)        asked instead of weigh, of a network that has the verb `score`
    """

    unlabelled: bool
    unlabelled_weight: float
    term_weights: Mapping[str, float]

    def weigh(self, teacher: Instances) -> Targets:
        """Keep K of the N instances that the teacher predicted, and weigh them."""
        ...


class Backend(Protocol):
    """Offer two verbs over a network of any framework; an nn.Module in practice."""

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses of a batch of views, by the names of TERMS, in training mode."""
        ...

    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give each view's instances, sorted by falling score; restore the mode."""
        ...
