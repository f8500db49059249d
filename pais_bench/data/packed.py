"""Pack a batch for its way from a loader process to the training's device: one tensor of bytes, and where things lie.

Views travel as u8, or, where the device makes them, as the image and its recipe; masks travel as the pixels at which
they change. So a batch is one file descriptor, one pinned block and one copy to the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, device

from pais_bench.data import augment, augment_device
from pais_bench.data.augment_device import ResizeTable, resize_taps
from pais_bench.data.labels import Labels, to_instances
from pais_bench.data.recipe import Matrix, Recipe
from pais_bench.types import Batch, Instances, Labelled, Size, Unlabelled, View

ALIGNMENT = 8  # bytes: that of the largest type


class Slot(NamedTuple):
    """Hold where an array lies in the buffer: its first byte, shape and type."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def of(self, buffer: Tensor) -> Tensor:
        """Return the array as a view of the buffer."""
        length = int(np.prod(self.shape)) * self.dtype.itemsize
        return buffer[self.offset : self.offset + length].view(self.dtype).view(self.shape)


class PackedView(NamedTuple):
    """Hold the pixels u8[h,w,3] of a view; where the device makes it, those of the image, the recipe, and its tables.

    tables: what ResizeTable holds of the two resizes, rows first.
    """

    pixels: Slot
    matrix: Matrix
    recipe: Recipe | None
    tables: tuple[tuple[Slot, Slot, int], ...]


class PackedLabels(NamedTuple):
    """Hold the labels of a view of size (H, W); see Labels."""

    size: Size
    classes: Slot
    boxes: Slot
    ends: Slot


class PackedLabelled(NamedTuple):
    """Hold a labelled image; see Labelled."""

    image_id: int
    view: PackedView
    labels: PackedLabels
    seed: int


class PackedUnlabelled(NamedTuple):
    """Hold an unlabelled image; see Unlabelled."""

    image_id: int
    weak: PackedView
    strong: PackedView
    labels: PackedLabels | None
    seed: int


@dataclass(frozen=True)
class PackedBatch:
    """Hold a batch as one tensor u8[n] and a description of what lies where."""

    step: int
    buffer: Tensor
    labelled: Sequence[PackedLabelled]
    unlabelled: Sequence[PackedUnlabelled]

    def pin_memory(self) -> PackedBatch:
        """Return the batch in pinned memory; the thread of torch's DataLoader calls it."""
        return replace(self, buffer=self.buffer.pin_memory())

    def unpack(self, place: device) -> Batch:
        """Return the batch with every tensor on a device, but the ground truth of unlabelled images on the CPU."""
        buffer = self.buffer.to(place, non_blocking=True)
        return Batch(
            self.step,
            [
                Labelled(one.image_id, unpack_view(one.view, buffer), _unpack_labels(one.labels, buffer), one.seed)
                for one in self.labelled
            ],
            [
                Unlabelled(
                    one.image_id,
                    unpack_view(one.weak, buffer),
                    unpack_view(one.strong, buffer),
                    _unpack_labels(one.labels, self.buffer) if one.labels else None,
                    one.seed,
                )
                for one in self.unlabelled
            ],
        )


class Packer:
    """Collect the arrays of a batch, on the CPU."""

    def __init__(self, views_on_device: bool) -> None:
        """Start empty."""
        self.views_on_device = views_on_device
        self._parts: list[npt.NDArray[np.uint8]] = []
        self._length = 0

    def views(self, image: Tensor, *recipes: Recipe) -> list[PackedView]:
        """Add views of an image u8[3,H,W]; where the device makes them, the image is added once.

        An image that is larger than its views together is not sent: they have the same pixels wherever they are made.
        """
        if not self.views_on_device or image.numel() > sum(3 * made.size[0] * made.size[1] for made in recipes):
            return [PackedView(self._add(augment.render(image, made)), made.matrix, None, ()) for made in recipes]
        pixels = self._add(image.permute(1, 2, 0).numpy())
        return [PackedView(pixels, made.matrix, made, self._tables(made)) for made in recipes]

    def labels(self, labels: Labels) -> PackedLabels:
        """Add the labels of a view."""
        return PackedLabels(labels.size, self._add(labels.classes), self._add(labels.boxes), self._add(labels.ends))

    def buffer(self) -> Tensor:
        """Return the bytes of all arrays u8[n]."""
        return torch.from_numpy(np.concatenate(self._parts)) if self._parts else torch.zeros(0, dtype=torch.uint8)

    def _tables(self, made: Recipe) -> tuple[tuple[Slot, Slot, int], ...]:
        taps = [resize_taps(source, target) for source, target in zip(made.source, made.size, strict=True)]
        return tuple((self._add(source), self._add(weight), shift) for source, weight, shift in taps)

    def _add(self, array: npt.NDArray[Any]) -> Slot:
        array = np.ascontiguousarray(array)
        slot = Slot(self._length, array.shape, torch.from_numpy(array).dtype)
        padding = -array.nbytes % ALIGNMENT
        self._parts += [array.reshape(-1).view(np.uint8), np.zeros(padding, dtype=np.uint8)]
        self._length += array.nbytes + padding
        return slot


def unpack_view(view: PackedView, buffer: Tensor) -> View:
    """Return a view on the device of the buffer that holds its pixels, which makes it where it has a recipe."""
    pixels, matrix = view.pixels.of(buffer), torch.from_numpy(view.matrix)
    if view.recipe is not None:
        rows, columns = (ResizeTable(one.of(buffer), weight.of(buffer), shift) for one, weight, shift in view.tables)
        pixels = augment_device.render(pixels.permute(2, 0, 1), view.recipe, (rows, columns)).permute(1, 2, 0)
    return View(augment.to_float(pixels), matrix)


def _unpack_labels(labels: PackedLabels, buffer: Tensor) -> Instances:
    return to_instances(labels.size, labels.classes.of(buffer), labels.boxes.of(buffer), labels.ends.of(buffer))
