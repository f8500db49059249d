"""Load the test views of images, some images at a time: what a network predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pais_bench.annotations.store import Store
from pais_bench.data import recipe
from pais_bench.data.loader import raise_errors
from pais_bench.data.packed import PackedView, Packer, unpack_view
from pais_bench.data.read import read_image
from pais_bench.errors import BenchError
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
    packing = _PackedViewsDataset(store, options, batches, views_on_device=cuda)
    loader = DataLoader(packing, batch_size=None, shuffle=False, num_workers=workers, pin_memory=cuda)
    for packed in raise_errors(loader):
        yield packed.unpack(device)


class _PackedViewsDataset(Dataset[PackedViews | BenchError]):
    """Map the index of a batch to its views, or to the error of an image: see loader._CatchErrors."""

    def __init__(
        self, store: Store, options: InputOptions, batches: Sequence[Sequence[int]], views_on_device: bool
    ) -> None:
        self.store, self.options, self.batches, self.views_on_device = store, options, batches, views_on_device

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> PackedViews | BenchError:
        packer = Packer(self.views_on_device)
        views: list[PackedView] = []
        try:
            for image_id in self.batches[index]:
                made = recipe.test(self.store.size(image_id), self.options)
                views += packer.views(read_image(self.store, image_id), made)
        except BenchError as error:
            return error
        return PackedViews(packer.buffer(), views)
