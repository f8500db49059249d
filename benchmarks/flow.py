"""Draw the flow of a training step for the README: weak view, teacher, detections, weights, strong view, student.

python benchmarks/flow.py [docs/images/flow.png]

Image, views, masks and weights are what the package computes on an image of the synthetic data; the scores of the
detections are examples, and PAIS's own assign_weights makes the weights of them.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment, recipe
from pais_bench.data.labels import read_instances
from pais_bench.data.read import read_image
from pais_bench.study.run import InputOptions
from pais_bench.types import Instances, Targets, View

SCORES, MASK_IOU = (0.92, 0.58, 0.44, 0.21), (0.90, 0.86, 0.62, 0.40)
"""Class score and predicted mask IoU of each detection; the last is below PAIS's thresholds."""
COLOURS = ("#ff9f0a", "#00c8e6", "#ff4fc8", "#ffffff")
INK, LINE, BLUE, GREEN, ORANGE = "#1f2328", "#57606a", "#dbeafe", "#d9f2dd", "#ffe4cc"
LOSS = "$\\sum\\, w_{class}\\, L_{class}$\n$+\\; w_{mask}\\, L_{mask}$"
INPUT = InputOptions(min_size_train=(180, 180), max_size_train=240, min_size_test=180, max_size_test=240, flip_prob=0)
STRONG_SEED = 87


def main(path: Path) -> None:
    """Draw the figure to a PNG file of 256 colours on white, which dark pages show as a card."""
    image, instances = load_image()
    height, width = image.shape[-2:]
    weak = augment.view(image, recipe.weak((height, width), INPUT, np.random.default_rng(0)))
    strong = augment.view(image, recipe.strong((height, width), INPUT, np.random.default_rng(STRONG_SEED)))
    detections = geometry.project_targets([Targets.unweighted(instances)], [weak.matrix], [weak.size])[0].instances
    pais = plugins.load("methods", "pais")
    method = pais.Method(pais.Options())
    targets = method.assign_weights(detections[method.keep(detections)])
    matrix = strong.matrix @ torch.linalg.inv(weak.matrix)
    projected = geometry.project_targets([targets], [matrix], [strong.size])[0]

    pairs = zip(targets.class_weight.tolist(), targets.mask_weight.tolist(), strict=True)
    scores = [f"s = {score:.2f}\nu = {mask_iou:.2f}" for score, mask_iou in zip(SCORES, MASK_IOU, strict=True)]
    weights = [f"class {class_weight:.2f}\nmask {mask_weight:.2f}" for class_weight, mask_weight in pairs]

    figure = plt.figure(figsize=(11, 3.2))
    draw_view(figure, 0.008, "weak view", weak, detections.masks[:0], ())
    draw_box(figure, 0.183, "teacher", BLUE)
    draw_view(figure, 0.278, "detections", weak, detections.masks, scores)
    draw_box(figure, 0.453, "assign_weights", GREEN, width=0.105)
    draw_view(figure, 0.583, "strong view", strong, projected.instances.masks, weights)
    draw_box(figure, 0.758, "student", ORANGE)
    for start, end in ((0.16, 0.18), (0.256, 0.276), (0.43, 0.45), (0.561, 0.581), (0.735, 0.755), (0.831, 0.851)):
        draw_arrow(figure, (start, 0.59), (end, 0.59))
    figure.text(0.856, 0.59, LOSS, fontsize=10, color=INK, va="center", linespacing=1.6)
    figure.text(0.353, 0.245, "s: class score,  u: predicted mask IoU", fontsize=8.5, color=LINE, ha="center")
    draw_arrow(figure, (0.793, 0.49), (0.218, 0.49), "bar,armA=-90,armB=-90,fraction=-0.05,angle=180")
    draw_arrow(figure, (0.793, 0.8), (0.793, 0.7))
    figure.text(0.793, 0.83, "labelled views,\nweight 1", fontsize=9, color=INK, ha="center")
    figure.text(0.505, 0.115, "EMA of the student's weights", fontsize=10, color=INK, ha="center")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, facecolor="white", bbox_inches="tight", pad_inches=0.12)
    Image.open(picture).convert("RGB").quantize(256).save(path, optimize=True)


def load_image() -> tuple[Tensor, Instances]:
    """Return an image u8[3,H,W] of the synthetic data with four objects: of 200, where they lie farthest apart."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = plugins.load("datasets", "shapes")
        plugin.Dataset(plugin.Options(train=200, val=1, size=192), None).prepare(Path(folder), "shapes")
        store = Store.open(Path(folder), "train")
        objects = {image_id: read_instances(store, image_id) for image_id in store.image_ids}
        image_id = max(objects, key=lambda image_id: spread(objects[image_id]))
        by_size = objects[image_id][objects[image_id].masks.flatten(1).sum(1).argsort(descending=True)]
        scored = replace(by_size, scores=torch.tensor(SCORES), mask_iou=torch.tensor(MASK_IOU))
        return read_image(store, image_id), scored


def spread(instances: Instances) -> float:
    """Return the least distance in pixels between the centres of two objects, or 0 where there are not four."""
    centres = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
    return float(torch.pdist(centres).min()) if len(instances) == len(SCORES) else 0.0


def draw_view(figure: Figure, left: float, title: str, view: View, masks: Tensor, labels: Sequence[str]) -> None:
    """Draw a view with masks bool[n,H,W] in the colours of their detections, and a label on each."""
    axes = figure.add_axes((left, 0.33, 0.15, 0.52))
    axes.imshow(view.image.permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=10, color=INK, pad=5)
    axes.set_axis_off()
    for mask, label, colour in zip(masks, labels, COLOURS, strict=False):
        axes.contour(mask.numpy(), levels=[0.5], colors=colour, linewidths=2)
        y, x = (float(side.float().mean()) for side in mask.nonzero(as_tuple=True))
        style = {"fontsize": 6.4, "weight": "bold", "color": "white", "ha": "center", "va": "center"}
        x = min(max(x, 0.17 * mask.shape[1]), 0.83 * mask.shape[1])  # a label stays inside the view
        axes.text(x, y, label, path_effects=[withStroke(linewidth=2, foreground="black")], **style)


def draw_box(figure: Figure, left: float, text: str, colour: str, width: float = 0.07) -> None:
    """Draw a function as a box with its name."""
    shape = "round,pad=0,rounding_size=0.012"
    figure.add_artist(FancyBboxPatch((left, 0.5), width, 0.18, boxstyle=shape, facecolor=colour, edgecolor=LINE))
    figure.text(left + width / 2, 0.59, text, ha="center", va="center", fontsize=10, color=INK)


def draw_arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float], style: str = "arc3") -> None:
    """Draw an arrow between two points of the figure."""
    arrow = FancyArrowPatch(start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=13, color=LINE, lw=1.4)
    figure.add_artist(arrow)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/flow.png"))
