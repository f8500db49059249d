"""Does boundary AP follow the definition of its paper, on shapes whose boundaries can be counted by hand?"""

from __future__ import annotations

from typing import Any

import coco_random
import numpy as np
import pytest
from pycocotools import mask as rle
from scipy import ndimage

from pais_bench.metrics import boundary, coco

SIDE = 100  # diagonal 141.4, so d is 3 pixels


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def defined(mask: np.ndarray) -> np.ndarray:
    """Give the boundary as the paper defines it, on the whole image."""
    distance = max(1, round(boundary.DILATION_RATIO * float(np.hypot(*mask.shape))))
    inner = ndimage.binary_erosion(mask, np.ones((3, 3), dtype=bool), iterations=distance, border_value=0)
    return mask.astype(bool) & ~inner


def edge_of(mask: np.ndarray) -> np.ndarray:
    return np.asarray(rle.decode(boundary._edge(rle.encode(np.asfortranarray(mask)))), dtype=bool)


def test_the_boundary_of_a_square_is_a_frame_of_d_pixels() -> None:
    edge = edge_of(square(20, 30, 40))
    assert edge.sum() == 40**2 - 34**2
    assert not edge[33:67, 23:57].any() and edge[30, 20] and edge[32, 22]


def test_a_mask_ends_at_the_frame_of_the_image_and_a_small_one_is_all_boundary() -> None:
    assert edge_of(square(0, 0, 100)).sum() == 100**2 - 94**2
    assert edge_of(square(50, 50, 6)).sum() == 36
    assert edge_of(np.ones((10, 10), dtype=np.uint8)).sum() == 100 - 64  # d is never below 1


def test_an_edge_inside_its_box_is_the_boundary() -> None:
    for mask in (square(20, 30, 40), square(0, 0, 50), square(60, 60, 40), square(3, 3, 1), 0 * square(0, 0, 1)):
        assert np.array_equal(edge_of(mask), defined(mask))


def truth(mask: np.ndarray) -> dict[str, Any]:
    note = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]}
    return {
        "images": [{"id": 1, "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{**note, "segmentation": encode(mask)}],
    }


def encode(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def test_a_shifted_square_is_worth_its_boundary_iou() -> None:
    found = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(square(21, 30, 40))}
    first, second = edge_of(square(20, 30, 40)), edge_of(square(21, 30, 40))
    iou = (first & second).sum() / (first | second).sum()
    assert 0.6 < iou < 0.8 < 39 / 41  # the IoU of the masks
    ap = boundary.evaluate(truth(square(20, 30, 40)), [found])["boundary"]["AP"]
    assert ap == pytest.approx(np.mean(np.linspace(0.5, 0.95, 10) <= iou))


def test_a_filled_hole_counts_by_the_smaller_iou() -> None:
    """A boundary that fits says little of a mask that lacks its middle: then mask IoU decides."""
    ring = square(10, 10, 80) - square(14, 14, 72)
    found = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(ring)}
    assert boundary.evaluate(truth(square(10, 10, 80)), [found])["boundary"]["AP"] == 0


def test_perfect_is_1_and_it_never_exceeds_mask_ap() -> None:
    content, records = coco_random.draw(3)
    assert boundary.evaluate(content, records)["boundary"]["AP"] < coco.evaluate(content, records)["segm"]["AP"]
    perfect = [
        {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(square(20, 30, 40))},
    ]
    assert boundary.evaluate(truth(square(20, 30, 40)), perfect)["boundary"]["AP"] == pytest.approx(1)
    assert boundary.evaluate(truth(square(20, 30, 40)), [])["boundary"]["AP"] == 0
