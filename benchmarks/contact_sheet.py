"""What does the drawn data look like? Its first images, each object in its class's colour.

python benchmarks/contact_sheet.py [shapes|streets] [docs/images/shapes.png]
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from pycocotools import mask as rle

from pais_bench import plugins
from pais_bench.store import Store

COLOURS = ("#ff3b30", "#ff9f0a", "#ffe600", "#34ff5a", "#00e5ff", "#3f8cff", "#c46bff", "#ff5fd2")


class Sheet(NamedTuple):
    """Say how a data set is laid out: an image's size in inches, how much colour is inside, and lines in pt."""

    rows: int
    columns: int
    width: float
    height: float
    fill: float
    line: float


SHEETS = {"shapes": Sheet(4, 8, 1.25, 1.4, 0.0, 1.3), "streets": Sheet(4, 3, 2.9, 1.5, 0.3, 0.9)}


def main(name: str, target: Path) -> None:
    """Draw the sheet to a PNG file of 256 colours."""
    sheet = SHEETS[name]
    plugin = plugins.load("datasets", name)
    with tempfile.TemporaryDirectory() as folder:
        options = plugin.Options(train=sheet.rows * sheet.columns, val=1)
        plugin.Dataset(options, None).prepare(Path(folder), name)
        store = Store.open(Path(folder), "train")
        figsize = (sheet.width * sheet.columns, sheet.height * sheet.rows)
        figure, axes = plt.subplots(sheet.rows, sheet.columns, figsize=figsize, layout="constrained")
        for axis, image_id in zip(axes.flat, store.image_ids, strict=True):
            draw(axis, store, image_id, sheet)
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
    Image.open(drawn).convert("RGB").quantize(256, kmeans=1).save(target, optimize=True)


def draw(axis: Axes, store: Store, image_id: int, sheet: Sheet) -> None:
    """Draw one image with the outlines of its objects, and of a crowd region dotted in white."""
    pixels = np.array(Image.open(store.path(image_id)).convert("RGB"), dtype=float) / 255
    notes = store.annotations(image_id)
    for annotation in notes:
        inside = mask(annotation).astype(bool)
        pixels[inside] += sheet.fill * (np.array(to_rgb(colour_of(store, annotation))) - pixels[inside])
    axis.imshow(pixels, interpolation="bicubic")
    axis.axis("off")
    for annotation in notes:
        style = "dotted" if annotation["iscrowd"] else "solid"
        lines = axis.contour(
            mask(annotation), [0.5], colors=colour_of(store, annotation), linewidths=sheet.line, linestyles=style
        )
        lines.set_path_effects([withStroke(linewidth=2 * sheet.line, foreground="black")])


def colour_of(store: Store, annotation: dict[str, Any]) -> str:
    """Give the colour of the class, white for a crowd region."""
    return "white" if annotation["iscrowd"] else COLOURS[store.label_of[annotation["category_id"]]]


def mask(annotation: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Decode the RLE of an annotation to u8[H,W]."""
    region = annotation["segmentation"]
    if isinstance(region["counts"], list):
        region = rle.frPyObjects(region, *region["size"])
    return np.asarray(rle.decode(region))


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "shapes"
    main(chosen, Path(sys.argv[2] if len(sys.argv) > 2 else f"docs/images/{chosen}.png"))
