"""Read image files as tensors: those of an annotation store, or any."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pais_bench.annotations.store import Store
from pais_bench.images.pixels import read_pixels


def read_file(path: Path) -> Tensor:
    """Read an image file as RGB u8[3,H,W]; raise BenchError that names the file if it cannot be read."""
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


def read_image(store: Store, image_id: int) -> Tensor:
    """Read an image of a store as RGB u8[3,H,W]; raise BenchError where its size is not that of its record."""
    pixels = read_pixels(store.path(image_id), store.size(image_id), f"image {image_id}")
    return torch.from_numpy(pixels).permute(2, 0, 1)
