"""Draw every augmentation of one image and its masks, for docs/explanation/methods.md.

python benchmarks/augmentations.py [docs/images/augmentations.png]
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment, recipe
from pais_bench.data.labels import read_instances
from pais_bench.data.read import read_image
from pais_bench.data.recipe import Geometric, Operation, Photometric, Recipe
from pais_bench.study.run import InputOptions
from pais_bench.types import View

LEVEL, COLUMNS = 8, 6


def main(path: Path) -> None:
    """Draw a grid of all operations at a high level, and write it as a PNG."""
    image, masks = example_image()
    options = InputOptions(min_size_train=(168, 216), max_size_train=240, min_size_test=192, max_size_test=240)
    size = image.shape[1], image.shape[2]
    recipes = [("image", Recipe(size, size))]
    operations: list[tuple[str, Operation]] = [
        *((f"{name} {LEVEL}", Photometric(name, LEVEL)) for name in recipe.PHOTOMETRIC[1:]),
        *((name, Geometric(recipe.geometric_matrix(name, size, 0.8, 0.4).numpy())) for name in recipe.GEOMETRIC),
        ("erase", recipe.random_erasing(size, np.random.default_rng(3))),
    ]
    recipes += [(name, Recipe(size, size, operations=(operation,))) for name, operation in operations]
    for name in ("weak", "labelled", "strong", "strong"):
        made = getattr(recipe, name)(size, options, np.random.default_rng(len(recipes)))
        recipes.append((f"{name} view", made))
    views = [(name, augment.view(image, made)) for name, made in recipes]
    rows = -(-len(views) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(COLUMNS * 1.7, rows * 1.85), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, view) in zip(axes.flat, views, strict=False):
        draw(axis, name, view, geometry.warp_masks(masks, view.matrix, view.size))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)


def example_image() -> tuple[Tensor, Tensor]:
    """Return the image u8[3,H,W] of 40 with most objects, and its masks bool[N,H,W]."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = plugins.load("datasets", "shapes")
        plugin.Dataset(plugin.Options(train=40, val=1, size=192), None).prepare(Path(folder), "shapes")
        store = Store.open(Path(folder), "train")
        image_id = max(store.image_ids, key=lambda image_id: len(store.annotations(image_id)))
        return read_image(store, image_id), read_instances(store, image_id).masks


def draw(axis: Axes, name: str, view: View, masks: Tensor) -> None:
    """Draw a view with the outlines of its masks."""
    axis.imshow(view.image.permute(1, 2, 0).numpy())
    for mask in masks:
        axis.contour(mask.numpy(), levels=[0.5], colors="white", linewidths=0.9)
    axis.set_title(name, fontsize=8)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/augmentations.png"))
