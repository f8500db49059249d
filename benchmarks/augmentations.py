"""What does each operation do to an image and its masks? All of them on one image, for docs/methods.md.

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
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from pais_bench import augment, data, geometry, plugins
from pais_bench.config import Views
from pais_bench.store import Store
from pais_bench.types import View

LEVEL, ACROSS = 8, 6


def main(path: Path) -> None:
    """Draw a grid of all operations at a high level, and write it as a picture."""
    image, masks = subject()
    views = Views(short=(168, 216), long=240, test_short=192, test_long=240)
    start = View(image, torch.eye(3, dtype=torch.float64))
    shown = [("image", start)]
    shown += [
        (f"{name} {LEVEL}", View(augment.recolour(image, name, LEVEL), start.matrix)) for name in augment.COLOURS[1:]
    ]
    for name in augment.MOVES:
        matrix = augment.displacement(name, start.size, 0.8, other=0.4)
        moved = geometry.warp(image.float(), matrix, start.size, fill=255 * augment.FILL)
        shown.append((name, View(moved.round().to(torch.uint8), matrix)))
    shown.append(("erase", augment.erase(start, np.random.default_rng(3))))
    for name in ("weak", "labelled", "strong", "strong"):
        view = getattr(augment, name)(image, views, np.random.default_rng(len(shown)))
        shown.append((f"{name} view", View((view.image * 255).round().to(torch.uint8), view.matrix)))
    rows = -(-len(shown) // ACROSS)
    figure, axes = plt.subplots(rows, ACROSS, figsize=(ACROSS * 1.7, rows * 1.85), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, view) in zip(axes.flat, shown, strict=False):
        draw(axis, name, view, geometry.warp_masks(masks, view.matrix, view.size))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=90)
    Image.open(picture).convert("RGB").quantize(128).save(path, optimize=True)


def subject() -> tuple[Tensor, Tensor]:
    """Give an image u8[3,H,W] with several objects and its masks bool[N,H,W], twice the size of the drawn one."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = plugins.load("datasets", "shapes")
        plugin.Dataset(plugin.Options(train=40, val=1, size=192), None).prepare(Path(folder), "shapes")
        store = Store.open(Path(folder), "train")
        chosen = max(store.image_ids, key=lambda image_id: len(store.annotations(image_id)))
        return data.read_stored(store, chosen), data.read_truth(store, chosen).masks


def draw(axis: Axes, name: str, view: View, masks: Tensor) -> None:
    """Draw a view with the outlines of the masks that its matrix moved there."""
    axis.imshow(view.image.permute(1, 2, 0).numpy())
    for mask in masks:
        axis.contour(mask.numpy(), levels=[0.5], colors="white", linewidths=0.9)
    axis.set_title(name, fontsize=8)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/augmentations.png"))
