"""Check that boxes, masks and images are projected alike."""

from __future__ import annotations

import math

import pytest
import torch
from pycocotools import mask as rle
from tiny import instances

from pais_bench import geometry
from pais_bench.data import augment
from pais_bench.types import Targets


def rotation(degrees: float, size: int = 64) -> torch.Tensor:
    return geometry.about(augment.rotation(degrees), size / 2, size / 2)


def test_the_matrix_from_teacher_to_student_view() -> None:
    teacher, student = geometry.scale(2, 2), geometry.flip(4)
    expected = torch.tensor([[-0.5, 0, 4], [0, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(student @ torch.linalg.inv(teacher), expected)


def test_identity_changes_nothing() -> None:
    before = instances([[3, 5, 20, 30], [0, 0, 64, 64]])
    after, kept = geometry.project(before, torch.eye(3, dtype=torch.float64), (64, 64))
    assert kept.tolist() == [0, 1]
    assert torch.equal(after.masks, before.masks) and torch.equal(after.boxes, before.boxes)


@pytest.mark.parametrize(
    "matrix", [geometry.flip(64), geometry.shift(7, -3), geometry.scale(0.5, 1.5), geometry.scale(2, 2)]
)
def test_upright_boxes_stay_tight_around_their_masks(matrix: torch.Tensor) -> None:
    size = (round(64 * float(matrix[1, 1].abs())), round(64 * float(matrix[0, 0].abs())))
    after, _ = geometry.project(instances([[8, 12, 40, 32]]), matrix, size)
    assert torch.allclose(geometry.masks_to_boxes(after.masks), after.boxes, atol=1.0)


@pytest.mark.parametrize("degrees", [-30, -11, 17, 30])
def test_a_rotation_and_its_inverse_are_nearly_the_identity(degrees: float) -> None:
    before = instances([[20, 24, 44, 40]])
    rotated, _ = geometry.project(before, rotation(degrees), (64, 64))
    back, _ = geometry.project(rotated, torch.linalg.inv(rotation(degrees)), (64, 64))
    inter, union = (before.masks & back.masks).sum(), (before.masks | back.masks).sum()
    assert inter / union > 0.95
    assert torch.allclose(back.boxes, before.boxes, atol=1.0)


def test_a_rotated_box_is_tight_and_not_the_hull() -> None:
    disc = instances([[20, 20, 44, 44]])
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc.masks[0] = (x - 32) ** 2 + (y - 32) ** 2 < 144
    after, _ = geometry.project(disc, rotation(30), (64, 64))
    assert torch.allclose(after.boxes, disc.boxes, atol=1.0)


def test_instances_outside_of_the_view_are_removed_with_their_weights() -> None:
    targets = Targets.unweighted(instances([[0, 0, 10, 10], [30, 30, 50, 50]]))
    targets.class_weight.copy_(torch.tensor([0.25, 0.75]))
    projected = geometry.project_targets(targets, geometry.shift(-20, -20), (64, 64))
    assert projected.instances.boxes.tolist() == [[10, 10, 30, 30]]
    assert projected.class_weight.tolist() == [0.75]


def test_no_instances_project_to_none() -> None:
    after, kept = geometry.project(instances([]), rotation(10), (32, 48))
    assert after.masks.shape == (0, 32, 48) and len(kept) == 0


def test_image_and_mask_are_warped_alike() -> None:
    mask = instances([[10, 20, 40, 44]]).masks
    matrix = rotation(23)
    image = geometry.warp(mask.float(), matrix, (64, 64))
    assert torch.equal(image > 0.5, geometry.warp_masks(mask, matrix, (64, 64)))


def test_pixels_from_outside_of_the_image_are_filled() -> None:
    warped = geometry.warp(torch.zeros(3, 8, 8), geometry.shift(4, 0), (8, 8), fill=125.0)
    assert warped[:, :, :4].unique().tolist() == [125.0] and warped[:, :, 4:].abs().max() == 0


def test_boxes_of_masks_are_tight() -> None:
    boxes = [[3, 5, 20, 30], [0, 0, 64, 64], [63, 63, 64, 64]]
    assert geometry.masks_to_boxes(instances(boxes).masks).tolist() == boxes
    assert geometry.masks_to_boxes(torch.zeros(1, 4, 4, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]


def test_rle_round_trip() -> None:
    mask = instances([[3, 5, 20, 30]], size=(40, 50)).masks[0]
    encoded = geometry.encode_mask(mask)
    assert encoded["size"] == [40, 50] and isinstance(encoded["counts"], str)
    assert torch.equal(torch.from_numpy(rle.decode(encoded)).bool(), mask)


def test_a_positive_rotation_is_clockwise_on_the_screen() -> None:
    right = torch.tensor([1.0, 0, 1], dtype=torch.float64)
    assert (augment.rotation(90) @ right)[:2].tolist() == pytest.approx([0, 1])  # right goes down: y points down
    assert math.isclose(float(torch.linalg.det(augment.rotation(30))), 1)
