"""Check that the views are those of PAIS's released code, and that each matrix maps masks as it maps the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pais_bench import geometry
from pais_bench.data import augment
from pais_bench.study.run import InputOptions
from pais_bench.types import View

OPTIONS = InputOptions(min_size_train=(48, 96), max_size_train=128, min_size_test=64, max_size_test=96)


def square(size: tuple[int, int] = (60, 80)) -> torch.Tensor:
    """Return a black image u8 with one white rectangle, so that its brightness is a mask."""
    image = torch.zeros((3, *size), dtype=torch.uint8)
    image[:, 20:40, 25:55] = 255
    return image


def outline_disagreement(view: View, original: torch.Tensor) -> float:
    """Return the fraction of pixels, away from the outline, in which the warped mask and the image differ."""
    warped = geometry.warp_masks(original[:1] > 127, view.matrix, view.size)
    brightness = view.image[:1] > 0.75
    edge = torch.nn.functional.max_pool2d(warped.float()[None], 3, 1, 1)[0] - warped.float()
    edge += warped.float() + torch.nn.functional.max_pool2d(-warped.float()[None], 3, 1, 1)[0]
    return float((warped ^ brightness)[edge == 0].float().mean())


@pytest.mark.parametrize("seed", range(12))
def test_the_matrix_maps_the_mask_to_that_of_the_weak_view(seed: int) -> None:
    view = augment.weak(square(), OPTIONS, np.random.default_rng(seed))
    assert outline_disagreement(view, square()) == 0


@pytest.mark.parametrize("seed", range(24))
def test_the_matrix_maps_the_mask_to_that_of_a_geometric_operation(seed: int) -> None:
    view = augment.geometric(View(square(), torch.eye(3, dtype=torch.float64)), np.random.default_rng(seed))
    assert outline_disagreement(View(view.image / 255, view.matrix), square()) == 0


def test_views_are_functions_of_the_generator() -> None:
    first = augment.strong(square(), OPTIONS, np.random.default_rng(5))
    torch.manual_seed(99)
    again = augment.strong(square(), OPTIONS, np.random.default_rng(5))
    assert torch.equal(first.image, again.image) and torch.equal(first.matrix, again.matrix)


def test_sizes_stay_in_range_and_keep_the_ratio() -> None:
    for seed in range(40):
        view = augment.weak(square(), OPTIONS, np.random.default_rng(seed))
        height, width = view.size
        assert 48 <= height <= 96 and width <= 128
        assert width / height == pytest.approx(80 / 60, abs=0.03)
        assert view.image.dtype == torch.float32 and view.image.min() >= 0 and view.image.max() <= 1


def test_the_longer_side_is_bounded() -> None:
    assert augment.test(square((30, 90)), OPTIONS).size == (32, 96)


def test_the_test_view_is_neither_flipped_nor_changed() -> None:
    view = augment.test(square((64, 80)), OPTIONS)
    assert torch.equal(view.image, square((64, 80)).float() / 255)
    assert torch.equal(view.matrix, torch.eye(3, dtype=torch.float64))


def test_flip_has_no_shift() -> None:
    rng = np.random.default_rng(0)
    flipped = augment.weak(square(), InputOptions(min_size_train=(60, 60), max_size_train=200, flip_prob=1), rng)
    assert torch.equal(flipped.image, square().flip(-1).float() / 255)
    assert flipped.matrix[0].tolist() == [-1, 0, 80]


@pytest.mark.parametrize(("level", "bits"), [(1, 4), (2, 4), (3, 3), (4, 3), (5, 2), (7, 2), (8, 1), (9, 1)])
def test_posterize_keeps_the_bits_of_the_release(level: int, bits: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert len(augment.apply_photometric(ramp, "posterize", level).unique()) == 2**bits


def test_solarize_inverts_from_its_threshold_on() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    changed = augment.apply_photometric(ramp, "solarize", 5)[0].flatten()
    assert changed[127] == 127 and changed[128] == 127 and changed[255] == 0


def test_brightness_takes_the_enhancer_factor() -> None:
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert augment.apply_photometric(grey, "brightness", 1).unique().tolist() == [28]
    assert augment.apply_photometric(grey, "brightness", 9).unique().tolist() == [172]


@pytest.mark.parametrize("name", augment.PHOTOMETRIC)
def test_photometric_operations_keep_shape_and_type(name: str) -> None:
    for level in range(1, 10):
        image = augment.apply_photometric(square(), name, level)
        assert image.shape == (3, 60, 80) and image.dtype == torch.uint8


def test_shear_is_a_tanh_of_at_most_048() -> None:
    assert augment.shear(30, 0)[0, 1].item() == pytest.approx(-0.4805, abs=1e-4)
    assert augment.shear(0, 30)[1, 0].item() == pytest.approx(0.4805, abs=1e-4)


def test_random_erasing_paints_one_to_four_grey_patches_of_at_most_a_fifth() -> None:
    white = torch.full((3, 100, 50), 255, dtype=torch.uint8)
    fractions = []
    for seed in range(60):
        view = augment.random_erasing(View(white, torch.eye(3, dtype=torch.float64)), np.random.default_rng(seed))
        assert set(view.image.unique().tolist()) <= {125, 255}
        fractions.append(float((view.image == 125).float().mean()))
    assert np.mean(fractions) > 0 and max(fractions) <= 4 * 0.2**2
    assert white.min() == 255


@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.7])
@pytest.mark.parametrize("name", augment.GEOMETRIC)
def test_each_geometric_operation_maps_masks_like_images(name: str, amount: float) -> None:
    """Compare the warped mask with the mask of the warped image, except for pixels on the edge."""
    image = torch.zeros(1, 60, 80)
    image[:, 15:45, 20:60] = 255
    matrix = augment.geometric_matrix(name, (60, 80), amount, amount_y=-amount)
    brightness = geometry.warp(image, matrix, (60, 80))[0] > 127.5
    warped = geometry.warp_masks(image > 0, matrix, (60, 80))[0]
    dilated = torch.nn.functional.max_pool2d(warped.float()[None], 3, 1, 1)[0] > 0
    assert not (brightness & ~dilated).any() and (brightness ^ warped).sum() <= 0.02 * warped.sum()
