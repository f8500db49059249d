"""Check that boxes, masks and images are projected alike."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny import instances, project, with_soft
from torch.nn import functional as F

from pais_bench import geometry
from pais_bench.data import recipe
from pais_bench.types import InstanceMaps, Targets


def rotation(degrees: float, size: int = 64) -> torch.Tensor:
    return geometry.about(recipe.rotation(degrees), size / 2, size / 2)


def test_the_matrix_from_teacher_to_student_view() -> None:
    teacher, student = geometry.scale(2, 2), geometry.flip(4)
    expected = torch.tensor([[-0.5, 0, 4], [0, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(student @ torch.linalg.inv(teacher), expected)


def test_identity_changes_nothing() -> None:
    before = instances([[3, 5, 20, 30], [0, 0, 64, 64]])
    after, kept = project(before, torch.eye(3, dtype=torch.float64), (64, 64))
    assert kept.tolist() == [0, 1]
    assert torch.equal(after.masks, before.masks) and torch.equal(after.boxes, before.boxes)


@pytest.mark.parametrize(
    "matrix", [geometry.flip(64), geometry.shift(7, -3), geometry.scale(0.5, 1.5), geometry.scale(2, 2)]
)
def test_upright_boxes_stay_tight_around_their_masks(matrix: torch.Tensor) -> None:
    size = (round(64 * float(matrix[1, 1].abs())), round(64 * float(matrix[0, 0].abs())))
    after, _ = project(instances([[8, 12, 40, 32]]), matrix, size)
    assert torch.allclose(geometry.masks_to_boxes(after.masks), after.boxes, atol=1.0)


@pytest.mark.parametrize("degrees", [-30, -11, 17, 30])
def test_a_rotation_and_its_inverse_are_nearly_the_identity(degrees: float) -> None:
    before = instances([[20, 24, 44, 40]])
    rotated, _ = project(before, rotation(degrees), (64, 64))
    back, _ = project(rotated, torch.linalg.inv(rotation(degrees)), (64, 64))
    inter, union = (before.masks & back.masks).sum(), (before.masks | back.masks).sum()
    assert inter / union > 0.95
    assert torch.allclose(back.boxes, before.boxes, atol=1.0)


def test_a_rotated_box_is_tight_and_not_the_hull() -> None:
    disc = instances([[20, 20, 44, 44]])
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc.masks[0] = (x - 32) ** 2 + (y - 32) ** 2 < 144
    after, _ = project(disc, rotation(30), (64, 64))
    assert torch.allclose(after.boxes, disc.boxes, atol=1.0)


def test_instances_outside_of_the_view_are_removed_with_their_weights() -> None:
    targets = Targets.unweighted(instances([[0, 0, 10, 10], [30, 30, 50, 50]]))
    targets.class_weight.copy_(torch.tensor([0.25, 0.75]))
    (projected,) = geometry.project_targets([targets], [geometry.shift(-20, -20)], [(64, 64)])
    assert projected.instances.boxes.tolist() == [[10, 10, 30, 30]]
    assert projected.class_weight.tolist() == [0.75]


def test_no_instances_project_to_none() -> None:
    after, kept = project(instances([]), rotation(10), (32, 48))
    assert after.masks.shape == (0, 32, 48) and len(kept) == 0


def test_image_and_mask_are_warped_alike() -> None:
    mask = instances([[10, 20, 40, 44]]).masks
    matrix = rotation(23)
    image = geometry.warp(mask.float(), matrix, (64, 64))
    assert torch.equal(image > 0.5, geometry.warp_masks(mask, matrix, (64, 64)))


def test_pixels_from_outside_of_the_image_are_0() -> None:
    warped = geometry.warp(torch.ones(3, 8, 8), geometry.shift(4, 0), (8, 8))
    assert warped[:, :, :4].abs().max() == 0 and warped[:, :, 4:].unique().tolist() == [1.0]


def test_boxes_of_masks_are_tight() -> None:
    boxes = [[3, 5, 20, 30], [0, 0, 64, 64], [63, 63, 64, 64]]
    assert geometry.masks_to_boxes(instances(boxes).masks).tolist() == boxes
    assert geometry.masks_to_boxes(torch.zeros(1, 4, 4, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]


def test_a_positive_rotation_is_clockwise_on_the_screen() -> None:
    right = torch.tensor([1.0, 0, 1], dtype=torch.float64)
    assert (recipe.rotation(90) @ right)[:2].tolist() == pytest.approx([0, 1])  # right goes down: y points down
    assert math.isclose(float(torch.linalg.det(recipe.rotation(30))), 1)


@pytest.mark.parametrize(
    "matrix", [rotation(23), geometry.scale(1.7, 0.6), geometry.shift(3.3, -2.1), geometry.flip(64)]
)
def test_warping_is_sampling_at_every_mapped_pixel_centre(matrix: torch.Tensor) -> None:
    image = torch.rand((3, 64, 48), generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    source = torch.stack((x, y, torch.ones_like(x)), -1).double() @ torch.linalg.inv(matrix).T
    grid = source[..., :2] / torch.tensor([48, 64]) * 2 - 1
    expected = F.grid_sample(image[None].double(), grid[None], align_corners=False)[0]
    torch.testing.assert_close(geometry.warp(image, matrix, (40, 80)), expected.float(), rtol=0, atol=1e-4)


def test_images_that_are_projected_together_are_projected_as_each_alone() -> None:
    boxes = [[[0, 0, 10, 10], [30, 30, 50, 50]], [], [[20, 4, 44, 60], [60, 60, 64, 64], [5, 5, 9, 9]]]
    targets = [Targets.unweighted(instances(image)) for image in boxes]
    matrices, sizes = [geometry.shift(-20, -20), geometry.flip(64), rotation(17)], [(64, 64), (32, 48), (50, 60)]
    together = geometry.project_targets(targets, matrices, sizes)
    for projected, target, matrix, size in zip(together, targets, matrices, sizes, strict=True):
        alone, kept = project(target.instances, matrix, size)
        assert torch.equal(projected.instances.masks, alone.masks) and torch.equal(
            projected.instances.boxes, alone.boxes
        )
        assert len(projected.class_weight) == len(kept)
    assert [len(projected.instances) for projected in together] == [1, 0, 2]
    assert geometry.project_targets([], [], []) == []


def test_indices_of_several_flags_are_those_of_each() -> None:
    flags = [torch.tensor(part, dtype=torch.bool) for part in ([0, 1, 1], [], [0], [1, 0, 0, 1])]
    assert [part.tolist() for part in geometry.nonzero_each(flags)] == [[1, 2], [], [], [0, 3]]


WHOLE = torch.tensor([[0.0, 0, 48, 64]])


@pytest.mark.parametrize("matrix", [rotation(23), geometry.scale(1.7, 0.6), geometry.shift(3.3, -2.1)])
def test_a_projected_map_has_the_values_of_one_that_is_resampled(matrix: torch.Tensor) -> None:
    """A map of the whole view, at half its size, is that map as an image; and it is read once, at the end."""
    values = torch.rand((1, 32, 24), generator=torch.Generator().manual_seed(0))
    maps = InstanceMaps(values, WHOLE, matrix)
    points = geometry.cell_centres(torch.tensor([[0.0, 0, 80, 40]]), (40, 80))
    read = geometry.sample_maps(maps, points, outside=-1.0)
    expected = geometry.warp(values, matrix @ geometry.scale(2, 2), (40, 80))
    covered = geometry.warp(torch.ones_like(values), matrix @ geometry.scale(2, 2), (40, 80))
    inside = covered > 1 - 1e-6  # cells at the border of a map are mixed with what lies outside by warp alone
    assert inside.sum() > 500 and (read[covered == 0] == -1).all()
    torch.testing.assert_close(read[inside], expected[inside], rtol=0, atol=1e-4)


def test_soft_masks_and_pixel_weights_are_projected_like_masks() -> None:
    """Where a mask that is projected has a pixel, its soft mask has a probability above a half, and no other has."""
    before = with_soft(instances([[0, 0, 5, 5], [20, 24, 44, 40], [8, 8, 28, 56]]))
    targets = replace(Targets.unweighted(before), pixel_weight=before.soft_masks)
    matrix = geometry.shift(-20, 2) @ rotation(31)
    (after,) = geometry.project_targets([targets], [matrix], (size := [(64, 64)]))
    assert len(after.instances) == 2, "the first leaves the view"
    points = geometry.cell_centres(torch.tensor([[0.0, 0, 64, 64]]), size[0]).expand(2, -1, -1, -1)
    soft = geometry.sample_maps(after.instances.soft_masks, points, outside=0.0)
    assert ((soft > 0.5) == after.instances.masks).float().mean() > 0.985
    assert torch.equal(soft, geometry.sample_maps(after.pixel_weight, points, outside=0.0))
    assert (geometry.pixel_weights_at(after, points, slice(None))[soft == 0] == 1).all(), "1 where a map does not reach"
    again = project(before[1:], matrix, size[0])[0]
    assert torch.equal(geometry.sample_maps(again.soft_masks, points, outside=0.0), soft)
    assert torch.equal(again.class_probs, before.class_probs[1:])


def test_maps_of_no_instance_have_no_values() -> None:
    empty = with_soft(instances([]))
    after, _ = project(empty, rotation(10), (32, 48))
    assert geometry.sample_maps(after.soft_masks, torch.zeros(0, 5, 7, 2), outside=1.0).shape == (0, 5, 7)
