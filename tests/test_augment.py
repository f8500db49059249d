"""Are the views those of the release, and does each matrix tell the truth about its image?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pais_bench import augment, geometry
from pais_bench.config import Views
from pais_bench.types import View

VIEWS = Views(short=(48, 96), long=128, test_short=64, test_long=96)


def square(size: tuple[int, int] = (60, 80)) -> torch.Tensor:
    """Give a black image u8 with one white rectangle, so that its brightness is a mask."""
    image = torch.zeros((3, *size), dtype=torch.uint8)
    image[:, 20:40, 25:55] = 255
    return image


def outline_disagreement(view: View, original: torch.Tensor) -> float:
    """Give the share of the moved mask's pixels, away from its outline, that the image shows differently."""
    moved = geometry.warp_masks(original[:1] > 127, view.matrix, view.size)
    shown = view.image[:1] > 0.75
    edge = torch.nn.functional.max_pool2d(moved.float()[None], 3, 1, 1)[0] - moved.float()
    edge += moved.float() + torch.nn.functional.max_pool2d(-moved.float()[None], 3, 1, 1)[0]
    inner = edge == 0
    return float((moved ^ shown)[inner].float().mean())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("make", [augment.weak])
def test_the_mask_through_the_matrix_is_the_mask_of_the_weak_view(make: Callable[..., View], seed: int) -> None:
    view = make(square(), VIEWS, np.random.default_rng(seed))
    assert outline_disagreement(view, square()) == 0


@pytest.mark.parametrize("seed", range(24))
def test_the_mask_through_the_matrix_is_the_mask_of_a_moved_image(seed: int) -> None:
    view = augment.move(View(square(), torch.eye(3, dtype=torch.float64)), np.random.default_rng(seed))
    assert outline_disagreement(View(view.image / 255, view.matrix), square()) == 0


def test_views_are_functions_of_the_generator() -> None:
    first = augment.strong(square(), VIEWS, np.random.default_rng(5))
    torch.manual_seed(99)
    again = augment.strong(square(), VIEWS, np.random.default_rng(5))
    assert torch.equal(first.image, again.image) and torch.equal(first.matrix, again.matrix)


def test_sizes_stay_in_range_and_keep_the_ratio() -> None:
    for seed in range(40):
        view = augment.weak(square(), VIEWS, np.random.default_rng(seed))
        height, width = view.size
        assert 48 <= height <= 96 and width <= 128
        assert width / height == pytest.approx(80 / 60, abs=0.03)
        assert view.image.dtype == torch.float32 and view.image.min() >= 0 and view.image.max() <= 1


def test_the_longer_side_is_bounded() -> None:
    assert augment.test(square((30, 90)), VIEWS).size == (32, 96)


def test_the_test_view_is_neither_flipped_nor_changed() -> None:
    view = augment.test(square((64, 80)), VIEWS)
    assert torch.equal(view.image, square((64, 80)).float() / 255)
    assert torch.equal(view.matrix, torch.eye(3, dtype=torch.float64))


def test_flip_has_no_shift() -> None:
    rng = np.random.default_rng(0)
    flipped = augment.weak(square(), Views(short=(60, 60), long=200, flip=1), rng)
    assert torch.equal(flipped.image, square().flip(-1).float() / 255)
    assert flipped.matrix[0].tolist() == [-1, 0, 80]


@pytest.mark.parametrize(
    ("level", "bits"), [(1, 4), (2, 4), (3, 3), (4, 3), (5, 2), (7, 2), (8, 1), (9, 1)]
)  # paper.md 2.4
def test_posterize_keeps_the_bits_of_the_release(level: int, bits: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert len(augment.recolour(ramp, "posterize", level).unique()) == 2**bits


def test_solarize_inverts_from_its_threshold_on() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    changed = augment.recolour(ramp, "solarize", 5)[0].flatten()
    assert changed[127] == 127 and changed[128] == 127 and changed[255] == 0


def test_brightness_takes_the_enhancer_factor() -> None:
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert augment.recolour(grey, "brightness", 1).unique().tolist() == [28]
    assert augment.recolour(grey, "brightness", 9).unique().tolist() == [172]


@pytest.mark.parametrize("name", augment.COLOURS)
def test_colours_keep_shape_type_and_place(name: str) -> None:
    for level in range(1, 10):
        image = augment.recolour(square(), name, level)
        assert image.shape == (3, 60, 80) and image.dtype == torch.uint8


def test_shear_is_a_tanh_of_at_most_048() -> None:
    assert augment.shear(30, 0)[0, 1].item() == pytest.approx(-0.4805, abs=1e-4)
    assert augment.shear(0, 30)[1, 0].item() == pytest.approx(0.4805, abs=1e-4)


def test_erase_paints_one_to_four_grey_patches_of_at_most_a_fifth() -> None:
    white = torch.full((3, 100, 50), 255, dtype=torch.uint8)
    shares = []
    for seed in range(60):
        view = augment.erase(View(white, torch.eye(3, dtype=torch.float64)), np.random.default_rng(seed))
        assert set(view.image.unique().tolist()) <= {125, 255}
        shares.append(float((view.image == 125).float().mean()))
    assert np.mean(shares) > 0 and max(shares) <= 4 * 0.2**2
    assert white.min() == 255


@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.7])
@pytest.mark.parametrize("name", augment.MOVES)
def test_each_move_takes_a_mask_where_it_takes_the_image(name: str, amount: float) -> None:
    """The mask warped by the matrix equals the mask of the warped image, but for pixels that the edge runs through."""
    image = torch.zeros(1, 60, 80)
    image[:, 15:45, 20:60] = 255
    matrix = augment.displacement(name, (60, 80), amount, other=-amount)
    seen = geometry.warp(image, matrix, (60, 80))[0] > 127.5
    moved = geometry.warp_masks(image > 0, matrix, (60, 80))[0]
    near = torch.nn.functional.max_pool2d(moved.float()[None], 3, 1, 1)[0] > 0
    assert not (seen & ~near).any() and (seen ^ moved).sum() <= 0.02 * moved.sum()
