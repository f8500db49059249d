"""Check that views are those of PAIS's released code, moved by their matrix, and the same wherever they are made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pais_bench import geometry
from pais_bench.data import augment, augment_device, recipe
from pais_bench.data.augment_device import ResizeTable, resize_taps
from pais_bench.data.recipe import Erasing, Geometric, Photometric, Recipe
from pais_bench.study.run import InputOptions
from pais_bench.types import View

OPTIONS = InputOptions(min_size_train=(48, 96), max_size_train=128, min_size_test=64, max_size_test=96)


def square(size: tuple[int, int] = (60, 80)) -> torch.Tensor:
    """Return a black image u8 with one white rectangle, so that its brightness is a mask."""
    image = torch.zeros((3, *size), dtype=torch.uint8)
    image[:, 20:40, 25:55] = 255
    return image


def noise(height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """Return an image u8[3,H,W] of noise that does not use all values, in the memory that read_image gives."""
    values = rng.integers(0, 256, (height, width, 3)) * rng.uniform(0.3, 1) + rng.uniform(0, 30)
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def render_by_device(image: torch.Tensor, made: Recipe) -> torch.Tensor:
    """Render as on a training's device, with torch's operators on the CPU."""
    sides = zip(made.source, made.size, strict=True)
    taps = [resize_taps(source, target) for source, target in sides]
    rows, columns = (ResizeTable(torch.from_numpy(taken), torch.from_numpy(weight), n) for taken, weight, n in taps)
    return augment_device.render(image, made, (rows, columns))


def recolour(image: torch.Tensor, name: str, level: int) -> torch.Tensor:
    size = image.shape[1], image.shape[2]
    made = Recipe(size, size, operations=(Photometric(name, level),))
    return torch.from_numpy(augment.render(image, made)).permute(2, 0, 1)


def outline_disagreement(view: View, original: torch.Tensor) -> float:
    """Return the fraction of pixels, away from the outline, in which the warped mask and the image differ."""
    warped = geometry.warp_masks(original[:1] > 127, view.matrix, view.size)
    brightness = view.image[:1] > 0.75
    edge = torch.nn.functional.max_pool2d(warped.float()[None], 3, 1, 1)[0] - warped.float()
    edge += warped.float() + torch.nn.functional.max_pool2d(-warped.float()[None], 3, 1, 1)[0]
    return float((warped ^ brightness)[edge == 0].float().mean())


@pytest.mark.parametrize("seed", range(12))
def test_the_matrix_maps_the_mask_to_that_of_the_weak_view(seed: int) -> None:
    view = augment.view(square(), recipe.weak((60, 80), OPTIONS, np.random.default_rng(seed)))
    assert outline_disagreement(view, square()) == 0


@pytest.mark.parametrize("seed", range(24))
def test_the_matrix_maps_the_mask_to_that_of_a_geometric_operation(seed: int) -> None:
    operation = recipe.geometric((60, 80), np.random.default_rng(seed))
    view = augment.view(square(), Recipe((60, 80), (60, 80), operations=(operation,)))
    assert outline_disagreement(view, square()) == 0


def test_recipes_are_functions_of_the_generator_in_the_order_of_its_stream() -> None:
    made, rng = recipe.strong((60, 80), OPTIONS, np.random.default_rng(5)), np.random.default_rng(5)
    height = int(rng.integers(48, 97))
    assert made.size == (height, round(80 * height / 60)) and made.flip == (rng.random() < 0.5)
    kinds = [(Photometric, Geometric, Erasing)[i] for i in rng.permutation(3)]
    assert [type(operation) for operation in made.operations] == kinds
    torch.manual_seed(99)
    again = recipe.strong((60, 80), OPTIONS, np.random.default_rng(5))
    assert np.array_equal(augment.render(square(), made), augment.render(square(), again))


@pytest.mark.parametrize("seed", range(30))
def test_a_device_makes_the_views_of_the_cpu_to_the_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = InputOptions(min_size_train=(20, 150), max_size_train=200)
    for draw in (recipe.weak, recipe.labelled, recipe.strong):
        height, width = (int(side) for side in rng.integers(2, 200, 2))
        image, made = noise(height, width, rng), draw((height, width), options, rng)
        by_device = render_by_device(image, made)
        assert tuple(by_device.shape[-2:]) == made.size
        assert np.array_equal(augment.render(image, made), by_device.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", recipe.PHOTOMETRIC)
def test_a_device_recolours_as_the_cpu_at_every_level(name: str) -> None:
    rng = np.random.default_rng(0)
    for level in range(1, 10):
        for image in (noise(37, 41, rng), noise(2, 5, rng), square()):
            on_device = augment_device.recolour(image, Photometric(name, level))
            assert torch.equal(recolour(image, name, level), on_device)


@pytest.mark.parametrize(
    ("name", "most", "oracle"),
    [
        ("identity", 0, lambda image, level: image),
        ("autocontrast", 1, lambda image, level: tv.autocontrast(image)),
        ("equalize", 0, lambda image, level: tv.equalize(image)),
        ("solarize", 0, lambda image, level: tv.solarize(image, min(int(25.6 * level), 255))),
        ("posterize", 0, lambda image, level: tv.posterize(image, 4 - int(0.4 * level))),
        ("brightness", 1, lambda image, level: tv.adjust_brightness(image, 0.18 * level + 0.1)),
        ("contrast", 2, lambda image, level: tv.adjust_contrast(image, 0.18 * level + 0.1)),
        ("color", 2, lambda image, level: tv.adjust_saturation(image, 0.18 * level + 0.1)),
        ("sharpness", 1, lambda image, level: tv.adjust_sharpness(image, 0.18 * level + 0.1)),
    ],
)
def test_photometric_operations_are_those_of_torchvision(
    name: str, most: int, oracle: Callable[[torch.Tensor, int], torch.Tensor]
) -> None:
    """Allow the grey levels by which its truncation, and its grey, may differ."""
    rng = np.random.default_rng(1)
    for level in range(1, 10):
        image = noise(31, 45, rng)
        difference = recolour(image, name, level).int() - oracle(image.contiguous(), level).int()
        assert int(difference.abs().max()) <= most


@pytest.mark.parametrize("name", recipe.GEOMETRIC)
def test_a_warp_is_bilinear(name: str) -> None:
    """Compare with geometry.warp on a smooth image: coordinates are rounded to 1/32 px."""
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    image = torch.stack((128 + 100 * torch.sin(x / 9), 128 + 100 * torch.cos(y / 7), x + y)).to(torch.uint8)
    matrix = recipe.geometric_matrix(name, (60, 80), 0.7, amount_y=-0.7)
    expected = (geometry.warp(image.float() - recipe.FILL, matrix, (60, 80)) + recipe.FILL).round()
    warped = augment.warp(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), matrix.numpy(), (60, 80))
    difference = (torch.from_numpy(warped).permute(2, 0, 1).float() - expected)[:, 2:-2, 2:-2].abs()
    assert float(difference.mean()) < 0.15 and float(difference.quantile(0.99)) <= 2


def test_sizes_stay_in_range_and_keep_the_ratio() -> None:
    for seed in range(40):
        view = augment.view(square(), recipe.weak((60, 80), OPTIONS, np.random.default_rng(seed)))
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
    options = InputOptions(min_size_train=(60, 60), max_size_train=200, flip_prob=1)
    flipped = augment.view(square(), recipe.weak((60, 80), options, np.random.default_rng(0)))
    assert torch.equal(flipped.image, square().flip(-1).float() / 255)
    assert flipped.matrix[0].tolist() == [-1, 0, 80]


@pytest.mark.parametrize(("level", "bits"), [(1, 4), (2, 4), (3, 3), (4, 3), (5, 2), (7, 2), (8, 1), (9, 1)])
def test_posterize_keeps_the_bits_of_the_release(level: int, bits: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert len(recolour(ramp, "posterize", level).unique()) == 2**bits


def test_solarize_inverts_from_its_threshold_on() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    changed = recolour(ramp, "solarize", 5)[0].flatten()
    assert changed[127] == 127 and changed[128] == 127 and changed[255] == 0


def test_brightness_takes_the_enhancer_factor() -> None:
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert recolour(grey, "brightness", 1).unique().tolist() == [28]
    assert recolour(grey, "brightness", 9).unique().tolist() == [172]


def test_shear_is_a_tanh_of_at_most_048() -> None:
    assert recipe.shear(30, 0)[0, 1].item() == pytest.approx(-0.4805, abs=1e-4)
    assert recipe.shear(0, 30)[1, 0].item() == pytest.approx(0.4805, abs=1e-4)


def test_random_erasing_paints_one_to_four_grey_patches_of_at_most_a_fifth() -> None:
    white = torch.full((3, 100, 50), 255, dtype=torch.uint8)
    fractions = []
    for seed in range(60):
        operation = recipe.random_erasing((100, 50), np.random.default_rng(seed))
        painted = augment.render(white, Recipe((100, 50), (100, 50), operations=(operation,)))
        assert set(np.unique(painted).tolist()) <= {125, 255}
        fractions.append(float((painted == 125).mean()))
    assert np.mean(fractions) > 0 and max(fractions) <= 4 * 0.2**2
    assert white.min() == 255


@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.7])
@pytest.mark.parametrize("name", recipe.GEOMETRIC)
def test_each_geometric_operation_maps_masks_like_images(name: str, amount: float) -> None:
    """Compare the warped mask with the mask of the warped image, except for pixels on the edge."""
    image = torch.zeros(1, 60, 80)
    image[:, 15:45, 20:60] = 255
    matrix = recipe.geometric_matrix(name, (60, 80), amount, amount_y=-amount)
    brightness = geometry.warp(image, matrix, (60, 80))[0] > 127.5
    warped = geometry.warp_masks(image > 0, matrix, (60, 80))[0]
    dilated = torch.nn.functional.max_pool2d(warped.float()[None], 3, 1, 1)[0] > 0
    assert not (brightness & ~dilated).any() and (brightness ^ warped).sum() <= 0.02 * warped.sum()
