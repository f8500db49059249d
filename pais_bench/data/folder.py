"""Load the test views of any images below a folder, some images at a time; a file that cannot be used is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from pais_bench.data import recipe
from pais_bench.data.loader import load_packed
from pais_bench.data.packed import Packer
from pais_bench.data.read import read_file
from pais_bench.data.views import PackedViews
from pais_bench.errors import BenchError
from pais_bench.images.pixels import read_header
from pais_bench.study.run import InputOptions
from pais_bench.types import Size, View

MAX_PIXELS = 200_000_000
"""Pixels of the largest image, as `prepare` has it by default; their quadruple has to fit in 31 bits."""


class FolderImage(NamedTuple):
    """Hold an image: number among the names, from 1; path relative to the folder; (H, W) upright in pixels; its view.

    Of a file that cannot be used fault says why, and there is no view.
    """

    id: int
    name: str
    size: Size
    view: View | None
    fault: str = ""


@dataclass(frozen=True)
class _PackedImages:
    """Hold images without their views, and the views of those that have no fault."""

    images: Sequence[FolderImage]
    views: PackedViews

    def pin_memory(self) -> _PackedImages:
        return replace(self, views=self.views.pin_memory())


def load_folder(
    folder: Path, names: Sequence[str], options: InputOptions, batch_size: int, workers: int, device: torch.device
) -> Iterator[list[FolderImage]]:
    """Yield the images of a folder by their names, batch_size at a time, with test views on a device.

    Worker processes read ahead, so that few images are in memory.
    """
    batches = [range(start, min(start + batch_size, len(names))) for start in range(0, len(names), batch_size)]
    cuda = device.type == "cuda"
    pack = partial(_pack_images, folder, names, options, cuda)
    for packed in load_packed(pack, batches, workers, pin_memory=cuda):
        views = iter(packed.views.unpack(device))
        yield [image if image.fault else image._replace(view=next(views)) for image in packed.images]


def _pack_images(
    folder: Path, names: Sequence[str], options: InputOptions, views_on_device: bool, positions: Sequence[int]
) -> _PackedImages:
    packer, images, views = Packer(views_on_device), [], []
    for position in positions:
        path = folder / names[position]
        try:
            size = read_header(path).upright
            _require_not_too_large(path, size)
            views += packer.views(read_file(path), recipe.test(size, options))
            fault = ""
        except BenchError as error:
            size, fault = (0, 0), str(error)
        images.append(FolderImage(position + 1, names[position], size, None, fault))
    return _PackedImages(images, PackedViews(packer.buffer(), views))


def _require_not_too_large(path: Path, size: Size) -> None:
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        limit = f"{pixels / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}"
        raise BenchError(f"{path}: {limit}; scale or cut the image")
