"""Draw the first images of the synthetic data, every object outlined in the colour of its class.

python benchmarks/contact_sheet.py [docs/images/shapes.png]
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image

from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.datasets.shapes import Dataset, Options

COLOURS = ("#ff3b30", "#ff9f0a", "#ffe600", "#34ff5a", "#00e5ff", "#3f8cff", "#c46bff", "#ff5fd2")
ROWS, COLUMNS = 4, 8
LINE_WIDTH = 1.3  # pt


def main(target: Path) -> None:
    """Write a PNG file of 256 colours."""
    with tempfile.TemporaryDirectory() as folder:
        Dataset(Options(train=ROWS * COLUMNS, val=1), None).prepare(Path(folder), "shapes")
        store = Store.open(Path(folder), "train")
        figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(1.25 * COLUMNS, 1.4 * ROWS), layout="constrained")
        for axis, image_id in zip(axes.flat, store.image_ids, strict=True):
            draw(axis, store, image_id)
        lines = [Line2D([], [], color=colour, linewidth=3) for colour in COLOURS]
        lines.append(Line2D([], [], color="white", linewidth=2, linestyle="dotted"))
        names = [name for _, name in store.categories] + ["crowd region"]
        legend = figure.legend(
            lines, names, loc="outside lower center", ncols=5, facecolor="#404040", labelcolor="white"
        )
        legend.set_in_layout(True)
        png = io.BytesIO()
        figure.savefig(png, dpi=125)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(png).convert("RGB").quantize(256, kmeans=1).save(target, optimize=True)


def draw(axis: Axes, store: Store, image_id: int) -> None:
    """Draw an image with the outlines of its objects; that of a crowd region is dotted and white."""
    axis.imshow(Image.open(store.path(image_id)).convert("RGB"), interpolation="bicubic")
    axis.axis("off")
    for annotation in store.annotations(image_id):
        crowd = annotation["iscrowd"]
        mask = decode_mask(annotation["segmentation"], store.size(image_id))
        colour = "white" if crowd else COLOURS[store.label_of[annotation["category_id"]]]
        style = "dotted" if crowd else "solid"
        lines = axis.contour(mask, [0.5], colors=colour, linewidths=LINE_WIDTH, linestyles=style)
        lines.set_path_effects([withStroke(linewidth=2 * LINE_WIDTH, foreground="black")])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/shapes.png"))
