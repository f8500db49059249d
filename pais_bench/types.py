"""Define the values that methods, backends and the training step exchange.

Dims: N instances, K of them kept, H W pixels of the view, C classes. Boxes are x0 y0 x1 y1 in pixels, with continuous
coordinates: the first pixel covers 0..1. Images are RGB float32 0..1, neither padded nor normalised. Labels are
0..C-1, without a background class. Nothing here imports torch at run time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, device, nn

TERMS = ("objectness", "proposal_box", "class", "box", "mask", "dice", "mask_iou", "semantic", "rank")
"""Every name that a loss term may have; a backend returns a subset."""

Size = tuple[int, int]
"""(H, W) in pixels."""

Losses = dict[str, "Tensor"]
"""Scalar losses by the names of TERMS."""

LossNormalizer = Callable[["int | Tensor"], "float | Tensor"]
"""Maps the number of samples that a loss term has in this batch to the number that the term is divided by: its mean
over ranks and micro-batches, at least 1 in total. Collective: every rank calls it in the same order."""

BoxScorer = Callable[["Tensor"], "tuple[Tensor, Tensor]"]
"""Maps boxes f32[n,4] of the weak view to the teacher's class probabilities f32[n,C+1], background first, and to the
boxes f32[n,C,4] that its box head refines them to, per class. It computes in eval mode, without a gradient."""

Keep = Callable[["Instances"], "Tensor"]
"""Maps a view's detections, whose masks are not pasted yet and thus bool[N,0,0], to those to keep, bool[N]."""


@dataclass(frozen=True)
class InstanceMaps:
    """Hold one map for each instance, at the resolution of the network that made it.

    values f32[N,h,w] | boxes f32[N,4]: the rectangle that each map covers, in pixels of the view that it was made in |
    matrix f64[3,3], affine: maps that view to the one of the instances. A projection changes the matrix alone: nothing
    is resampled until values are read at points (geometry.sample_maps).
    """

    values: Tensor
    boxes: Tensor
    matrix: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> InstanceMaps:
        """Select maps by a bool[N] or i64[K] index or a slice."""
        return InstanceMaps(self.values[index], self.boxes[index], self.matrix)

    def to(self, device: device) -> InstanceMaps:
        """Move maps and boxes to a device; the matrix stays on the CPU."""
        return InstanceMaps(self.values.to(device), self.boxes.to(device), self.matrix)


@dataclass(frozen=True)
class Instances:
    """Hold the instances of one view.

    boxes f32[N,4] px | labels i64[N] 0..C-1 | masks bool[N,H,W] | scores f32[N] 0..1, of the class | mask_iou f32[N]
    0..1, predicted IoU of the mask. Ground truth has scores = mask_iou = 1; predictions are sorted by falling score.
    Only `predict_soft` makes the other two: soft_masks: probabilities 0..1 of each pixel, before they are cut |
    class_probs f32[N,C] 0..1: probability of every class, in which no mask takes part.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    scores: Tensor
    mask_iou: Tensor
    soft_masks: InstanceMaps | None = None
    class_probs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Instances:
        """Select instances by a bool[N] or i64[K] index or a slice; for a bool one the host waits for the device."""
        if not isinstance(index, slice) and str(index.dtype) == "torch.bool":
            index = index.nonzero()[:, 0]  # once: each of the tensors would wait for it
        return self._each(lambda value: value[index])

    def to(self, device: device) -> Instances:
        """Move every tensor to a device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Any], Any]) -> Instances:
        """Return the instances with every field that they have changed."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: Any = {name: change(value) for name, value in values.items() if value is not None}
        return Instances(**changed)


@dataclass(frozen=True)
class Targets:
    """Hold what the student learns from one view, and how much each instance counts.

    class_weight, mask_weight, box_weight f32[K] >= 0 multiply the loss of whatever a network matched to the instance.
    background >= 0 multiplies the class loss of whatever is unmatched; as a function it maps boxes f32[n,4] of the view
    to weights f32[n], for networks with boxes. Ground truth has 1 everywhere. seed: seeds anchor, RoI and point
    sampling for this view; None uses torch's global generator. pixel_weight: maps of K weights >= 0 that multiply the
    mask loss pixel by pixel, before its mean over pixels; 1 where a map does not reach, and everywhere for None. No
    other loss has it. For methods with needs_soft_predictions only.
    """

    instances: Instances
    class_weight: Tensor
    mask_weight: Tensor
    box_weight: Tensor
    background: float | Callable[[Tensor], Tensor] = 1.0
    seed: int | None = None
    pixel_weight: InstanceMaps | None = None

    def __getitem__(self, index: Tensor) -> Targets:
        """Select instances, with their weights, by an i64[K] index."""
        return replace(
            self,
            instances=self.instances[index],
            class_weight=self.class_weight[index],
            mask_weight=self.mask_weight[index],
            box_weight=self.box_weight[index],
            pixel_weight=None if self.pixel_weight is None else self.pixel_weight[index],
        )

    @staticmethod
    def unweighted(instances: Instances) -> Targets:
        """Return targets in which every instance has weight 1."""
        one = instances.scores.new_ones(len(instances))
        return Targets(instances, class_weight=one, mask_weight=one, box_weight=one)


@dataclass(frozen=True)
class View:
    """Hold one augmented image f32[3,H,W] and the matrix f64[3,3] that maps original pixels to its pixels."""

    image: Tensor
    matrix: Tensor

    @property
    def size(self) -> Size:
        """Return (H, W) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Labelled:
    """Hold one labelled image; instances are in pixels of the view. seed: see Targets."""

    image_id: int
    view: View
    instances: Instances
    seed: int | None = None


@dataclass(frozen=True)
class Unlabelled:
    """Hold the weak and the strong view of one image whose labels the student must not see, unless of `oracle`.

    ground_truth, in pixels of the weak view, serves the log's precision and recall; None where there is none, and in
    steps that are not logged. seed: see Targets; also seeds what a method draws about the image.
    """

    image_id: int
    weak: View
    strong: View
    ground_truth: Instances | None
    seed: int | None = None


@dataclass(frozen=True)
class Batch:
    """Hold the images of one rank in one step."""

    step: int
    labelled: Sequence[Labelled]
    unlabelled: Sequence[Unlabelled]


class Backend(Protocol):
    """Compute losses and predictions with a network of any framework, an nn.Module (layers/network.py).

    Views are padded at the right and below to at least pad_to, a multiple of the network's stride.
    """

    @abstractmethod
    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        ...

    @abstractmethod
    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return the losses of a batch of views, in training mode."""
        ...

    @abstractmethod
    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return each view's instances, sorted by falling score; the module's mode is restored.

        What keep drops is dropped before masks are pasted: predict(keep=keep) equals predict() filtered by keep.
        """
        ...


@runtime_checkable
class SoftBackend(Backend, Protocol):
    """Offer what methods with needs_soft_predictions ask for."""

    def predict_soft(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> list[Instances]:
        """Return what predict does, with soft masks and class probabilities, which keep sees too."""
        ...


@runtime_checkable
class ScoringBackend(Backend, Protocol):
    """Offer what methods with needs_box_scorer ask for."""

    def predict_with_scorers(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> tuple[list[Instances], list[BoxScorer]]:
        """Return what predict does, and each view's scorer of boxes, from the same pass of the backbone."""
        ...
