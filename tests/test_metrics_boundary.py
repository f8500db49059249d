"""Check boundary AP against the definition of its paper, on shapes whose boundaries can be counted by hand."""

from __future__ import annotations

from typing import Any

import coco_random
import numpy as np
import pytest
from pycocotools import mask as rle
from scipy import ndimage

from pais_bench.evaluation.metrics import boundary, coco

SIDE = 100  # diagonal 141.4, so d is 3 pixels


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def expected_boundary(mask: np.ndarray) -> np.ndarray:
    """Return the boundary as the paper defines it, on the whole image."""
    distance = max(1, round(boundary.DILATION_RATIO * float(np.hypot(*mask.shape))))
    inner = ndimage.binary_erosion(mask, np.ones((3, 3), dtype=bool), iterations=distance, border_value=0)
    return mask.astype(bool) & ~inner


def boundary_of(mask: np.ndarray) -> np.ndarray:
    return np.asarray(rle.decode(boundary.boundary(rle.encode(np.asfortranarray(mask)))), dtype=bool)


def test_the_boundary_of_a_square_is_a_frame_of_d_pixels() -> None:
    pixels = boundary_of(square(20, 30, 40))
    assert pixels.sum() == 40**2 - 34**2
    assert not pixels[33:67, 23:57].any() and pixels[30, 20] and pixels[32, 22]


def test_the_border_of_the_image_is_contour_and_a_small_one_is_all_boundary() -> None:
    assert boundary_of(square(0, 0, 100)).sum() == 100**2 - 94**2
    assert boundary_of(square(50, 50, 6)).sum() == 36
    assert boundary_of(np.ones((10, 10), dtype=np.uint8)).sum() == 100 - 64  # d is never below 1


def test_the_boundary_within_the_box_is_the_whole_boundary() -> None:
    for mask in (square(20, 30, 40), square(0, 0, 50), square(60, 60, 40), square(3, 3, 1), 0 * square(0, 0, 1)):
        assert np.array_equal(boundary_of(mask), expected_boundary(mask))


def ground_truth(mask: np.ndarray) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]}
    return {
        "images": [{"id": 1, "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{**annotation, "segmentation": encode(mask)}],
    }


def encode(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def test_a_shifted_square_is_matched_by_its_boundary_iou() -> None:
    record = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(square(21, 30, 40))}
    first, second = boundary_of(square(20, 30, 40)), boundary_of(square(21, 30, 40))
    iou = (first & second).sum() / (first | second).sum()
    assert 0.6 < iou < 0.8 < 39 / 41  # the IoU of the masks
    ap = boundary.Metric().evaluate(ground_truth(square(20, 30, 40)), [record])["boundary"]["AP"]
    assert ap == pytest.approx(np.mean(np.linspace(0.5, 0.95, 10) <= iou))


def test_a_filled_hole_counts_by_the_smaller_iou() -> None:
    """A matching boundary is not enough where the mask lacks its middle: there the mask IoU is the smaller one."""
    ring = square(10, 10, 80) - square(14, 14, 72)
    record = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(ring)}
    assert boundary.Metric().evaluate(ground_truth(square(10, 10, 80)), [record])["boundary"]["AP"] == 0


def test_perfect_is_1_and_below_mask_ap_otherwise() -> None:
    content, records = coco_random.generate(3)
    mask_ap = coco.Metric().evaluate(content, records)["segm"]["AP"]
    assert boundary.Metric().evaluate(content, records)["boundary"]["AP"] < mask_ap
    perfect = [{"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": encode(square(20, 30, 40))}]
    assert boundary.Metric().evaluate(ground_truth(square(20, 30, 40)), perfect)["boundary"]["AP"] == pytest.approx(1)
    assert boundary.Metric().evaluate(ground_truth(square(20, 30, 40)), [])["boundary"]["AP"] == 0
