"""Read the labels of an image and rasterise their masks once, at the size of the view that they are used in.

Polygons are moved as points and rasterised by the COCO API, so that the file's own convention holds at every size; RLE
is decoded and warped mask by mask. Nothing holds all masks of an image at the size of the file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_rle
from torch import Tensor, device

from pais_bench.annotations import rle
from pais_bench.annotations.rle_columns import decode_counts
from pais_bench.annotations.store import Store
from pais_bench.data.augment import Pixels, sampling_matrix
from pais_bench.data.recipe import Matrix, Recipe
from pais_bench.splits import label_noise
from pais_bench.splits.split import Split
from pais_bench.types import Instances, Size

Array = npt.NDArray[Any]


class Labels(NamedTuple):
    """Hold the labelled objects of a view of size (H, W): classes i64[N], boxes f32[N,4] px, and ends i64[R].

    ends, ascending, are those of runs of pixels, outside and inside of a mask in turn, counted down the columns and
    through all masks.
    """

    size: Size
    classes: Array
    boxes: Array
    ends: Array


def read_labels(
    store: Store, image_id: int, split: Split | None = None, made: Recipe | None = None, with_stuff: bool = True
) -> Labels:
    """Read the objects of an image in the view of a recipe, by default in its original pixels.

    The recipe has no geometric operation: a moved polygon would also be rasterised where it leaves the image.
    Crowd regions and masks without a pixel are left out; a box is the tight one of its mask. A split with label noise
    changes the objects; None reads the ground truth. Without stuff only things are read.
    """
    size, annotations = store.size(image_id), store.annotations(image_id)
    if split is not None:
        annotations = label_noise.apply(split, annotations, size)
    annotations = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    if not with_stuff:
        annotations = [one for one in annotations if store.isthing[store.label_of[one["category_id"]]]]
    segmentations = [annotation["segmentation"] for annotation in annotations]
    if made is not None:
        matrix = made.matrix
        segmentations = [_move(segmentation, size, matrix, made.size) for segmentation in segmentations]
        size = made.size
    masks = [rle.compress(segmentation, size) for segmentation in segmentations]
    filled = [k for k, mask in enumerate(masks) if coco_rle.area(mask) > 0]
    classes = np.array([store.label_of[annotations[k]["category_id"]] for k in filled], dtype=np.int64)
    corners = np.array([coco_rle.toBbox(masks[k]) for k in filled], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Labels(size, classes, corners, _run_ends([masks[k] for k in filled], size))


def read_instances(store: Store, image_id: int) -> Instances:
    """Read an image's instances in its original pixels, as read_labels does."""
    size, classes, boxes, ends = read_labels(store, image_id)
    return to_instances(size, *map(torch.from_numpy, (classes, boxes, ends)))


def read_boxes(store: Store, image_id: int, split: Split | None = None, with_stuff: bool = True) -> Instances:
    """Read an image's instances in its original pixels, as read_labels does, with masks bool[N,0,0]."""
    _, classes, boxes, _ = read_labels(store, image_id, split, with_stuff=with_stuff)
    one = torch.ones(len(classes))
    empty = torch.zeros((len(classes), 0, 0), dtype=torch.bool)
    return Instances(torch.from_numpy(boxes), torch.from_numpy(classes), empty, scores=one, mask_iou=one)


def to_instances(size: Size, classes: Tensor, boxes: Tensor, ends: Tensor) -> Instances:
    """Return the instances of Labels on the device of the tensors; nothing is read back from there."""
    one = torch.ones(len(classes), device=classes.device)
    return Instances(boxes, classes, _rasterise(ends, len(classes), size, classes.device), scores=one, mask_iou=one)


def _rasterise(ends: Tensor, count: int, size: Size, place: device) -> Tensor:
    """Return masks bool[N,H,W], whose runs of pixels have these ends."""
    height, width = size
    total = count * height * width
    if place.type == "cpu":
        lengths = np.diff(ends.numpy(), prepend=0, append=total)
        inside = torch.from_numpy(np.repeat(np.arange(len(lengths)) % 2 == 1, lengths))
    else:
        changes = torch.zeros(total, dtype=torch.uint8, device=place).index_fill_(0, ends, 1)
        inside = (changes.cumsum(0, dtype=torch.uint8) & 1).bool()  # a sum that overflows keeps its parity
    return inside.view(count, width, height).transpose(1, 2).contiguous()


def _move(segmentation: Any, size: Size, matrix: Matrix, new_size: Size) -> Any:
    """Return polygons, or any RLE, of an image of size (H, W) in the pixels that a matrix f64[3,3] maps them to."""
    if isinstance(segmentation, list):
        points = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
        return [(polygon @ matrix[:2, :2].T + matrix[:2, 2]).ravel().tolist() for polygon in points]
    mask = coco_rle.decode(rle.compress(segmentation, size))
    return coco_rle.encode(np.asfortranarray(_resize(mask, matrix, new_size)))


def _resize(mask: Pixels, matrix: Matrix, size: Size) -> Pixels:
    """Resample a mask u8[H,W] of 0 and 1 through an upright matrix f64[3,3] into u8[*size]: 1 where it exceeds a half.

    A value is that of augment.warp, whose OpenCV refuses a side of 32,767 px: columns are interpolated, then rows.
    """
    (across, _, left), (_, down, top), _ = sampling_matrix(matrix)
    x = np.rint(left * 1024).astype(np.int64) + np.rint(across * np.arange(size[1]) * 1024).astype(np.int64)
    y = np.rint((down * np.arange(size[0]) + top) * 1024).astype(np.int64)
    columns = _blend_rows(mask.T, (x + 16) >> 5)
    sums = _blend_rows(columns.T.astype(np.int16), (y + 16) >> 5)
    return (sums > 514).astype(np.uint8)  # of 1024; OpenCV rounds 514 of them to a half


def _blend_rows(values: Array, positions: npt.NDArray[np.int64]) -> Array:
    """Return 32 times the values [n,m] at positions i64[k] in 1/32 row, bilinearly, with zeros around them: [k,m]."""
    padded, share = np.pad(values, ((1, 1), (0, 0))), (positions & 31)[:, None].astype(values.dtype)
    first, second = (padded[(row + 1).clip(0, len(values) + 1)] for row in (positions >> 5, (positions >> 5) + 1))
    return np.asarray(first * (32 - share) + second * share)


def _run_ends(masks: list[Any], size: Size) -> Array:
    """Return the ends of compressed RLEs. Two at one place, where a mask ends and the next begins, are none."""
    if not masks:
        return np.zeros(0, dtype=np.int64)
    texts = [mask["counts"] for mask in masks]
    decoded = decode_counts([text if isinstance(text, str) else text.decode("ascii") for text in texts])
    assert decoded is not None, "prepare checks every RLE"
    counts, first = decoded
    places = np.cumsum(counts)
    last = np.append(first[1:], len(counts)) - 1
    is_end = np.ones(len(counts), dtype=bool)
    is_end[last] = (last - first) % 2 == 1
    ends, times = np.unique(places[is_end], return_counts=True)
    return np.asarray(ends[(times % 2 == 1) & (ends < len(masks) * size[0] * size[1])])
