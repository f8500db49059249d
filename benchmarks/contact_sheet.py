"""What does the embedded data look like? Draw its first images, each object outlined in its class's colour.

python benchmarks/contact_sheet.py [docs/images/shapes.png]
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from pycocotools import mask as rle

from pais_bench.datasets import shapes
from pais_bench.store import Store

ROWS, COLUMNS = 4, 8
COLOURS = ("#ff3b30", "#ff9f0a", "#ffe600", "#34ff5a", "#00e5ff", "#3f8cff", "#c46bff", "#ff5fd2")


def main(target: Path) -> None:
    """Draw the sheet to a PNG file of 256 colours."""
    with tempfile.TemporaryDirectory() as folder:
        shapes.Dataset(shapes.Options(train=ROWS * COLUMNS, val=1), None).prepare(Path(folder), "shapes")
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
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=125)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(256).save(target, optimize=True)


def draw(axis: Axes, store: Store, image_id: int) -> None:
    """Draw one image with the outlines of its objects, and of a crowd region dotted in white."""
    axis.imshow(np.asarray(Image.open(store.path(image_id))), interpolation="bicubic")
    axis.axis("off")
    for annotation in store.annotations(image_id):
        crowd = annotation["iscrowd"]
        colour = "white" if crowd else COLOURS[store.label_of[annotation["category_id"]]]
        lines = axis.contour(
            mask(annotation), [0.5], colors=colour, linewidths=1.3, linestyles="dotted" if crowd else "solid"
        )
        lines.set_path_effects([withStroke(linewidth=2.6, foreground="black")])


def mask(annotation: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Decode the RLE of an annotation to u8[H,W]."""
    region = annotation["segmentation"]
    if isinstance(region["counts"], list):
        region = rle.frPyObjects(region, *region["size"])
    return np.asarray(rle.decode(region))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/shapes.png"))
