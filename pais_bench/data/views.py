"""Load the test views of images, some images at a time: what a network predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pais_bench.annotations.store import Store
from pais_bench.data import recipe
from pais_bench.data.loader import load_packed
from pais_bench.data.packed import PackedView, Packer, unpack_view
from pais_bench.data.read import read_image
from pais_bench.study.run import InputOptions
from pais_bench.types import View


@dataclass(frozen=True)
class PackedViews:
    """Hold views as one tensor u8[n] and a description of what lies where; see PackedBatch."""

    buffer: Tensor
    views: Sequence[PackedView]

    def pin_memory(self) -> PackedViews:
        """Return the views in pinned memory; the thread of torch's DataLoader calls it."""
        return replace(self, buffer=self.buffer.pin_memory())

    def unpack(self, device: torch.device) -> list[View]:
        """Return the views on a device."""
        buffer = self.buffer.to(device, non_blocking=True)
        return [unpack_view(view, buffer) for view in self.views]


def load_views(
    store: Store, options: InputOptions, batches: Sequence[Sequence[int]], workers: int, device: torch.device
) -> Iterator[list[View]]:
    """Yield the test views of the images of each batch, by their ids, on a device; worker processes read ahead."""
    cuda = device.type == "cuda"
    pack = partial(_pack_views, store, options, cuda)
    for packed in load_packed(pack, batches, workers, pin_memory=cuda):
        yield packed.unpack(device)


def _pack_views(store: Store, options: InputOptions, views_on_device: bool, image_ids: Sequence[int]) -> PackedViews:
    packer = Packer(views_on_device)
    views: list[PackedView] = []
    for image_id in image_ids:
        made = recipe.test(store.size(image_id), options)
        views += packer.views(read_image(store, image_id), made)
    return PackedViews(packer.buffer(), views)
