"""Read images and their instances from an annotation store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pais_bench import geometry
from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.images.pixels import read_pixels
from pais_bench.splits import label_noise
from pais_bench.splits.split import Split
from pais_bench.types import Instances


def read_file(path: Path) -> Tensor:
    """Read an image file as RGB u8[3,H,W]; raise BenchError that names the file if it cannot be read."""
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


def read_image(store: Store, image_id: int) -> Tensor:
    """Read an image of a store as RGB u8[3,H,W]; raise BenchError where its size is not that of its record."""
    pixels = read_pixels(store.path(image_id), store.size(image_id), f"image {image_id}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_instances(store: Store, image_id: int, split: Split | None = None) -> Instances:
    """Read an image's instances in its original pixels, without crowd regions and empty masks.

    A split with label noise changes them; None reads the ground truth.
    """
    size, annotations = store.size(image_id), store.annotations(image_id)
    if split is not None:
        annotations = label_noise.apply(split, annotations, size)
    annotations = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    masks = [decode_mask(annotation["segmentation"], size) for annotation in annotations]
    filled = [i for i, mask in enumerate(masks) if mask.any()]
    pixels = np.stack([masks[i] for i in filled]) if filled else np.zeros((0, *size), dtype=bool)
    stacked = torch.from_numpy(pixels)
    labels = torch.tensor([store.label_of[annotations[i]["category_id"]] for i in filled], dtype=torch.int64)
    one = torch.ones(len(filled))
    return Instances(geometry.masks_to_boxes(stacked), labels, stacked, scores=one, mask_iou=one)
