"""Draw synthetic streets in the files and folders of Cityscapes.

Things stand on a road in rows: near ones are large, hide far ones and leave the frame; neighbours touch. Cars are
frequent and trains rare, some rows of cars and clusters of people are groups, and one street in ten is empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pais_bench.datasets import _cityscapes as files

CITIES = {"train": ("aachen", "bochum", "ulm"), "val": ("frankfurt", "lindau")}
THINGS = {  # label: (frequency, width and height relative to the size of a person)
    **{
        "car": (0.42, 2.0, 0.9),
        "person": (0.2, 0.4, 1.0),
        "cargroup": (0.06, 4.0, 0.7),
        "persongroup": (0.06, 1.5, 0.9),
    },
    **{"rider": (0.06, 0.5, 1.0), "bicycle": (0.07, 1.0, 0.6), "motorcycle": (0.04, 1.0, 0.7), "bus": (0.03, 3.5, 1.8)},
    **{"truck": (0.04, 3.0, 1.8), "train": (0.02, 6.0, 2.0)},
}


def draw_tree(root: Path, train: int, val: int, size: int = 128, seed: int = 0) -> Path:
    """Draw gtFine and leftImg8bit with images of 2 size x size px into a folder, and return the folder.

    Image k is the same whatever the number of images.
    """
    for number, (subset, count) in enumerate((("train", train), ("val", val))):
        for index in range(count):
            _write(root, subset, index, size, np.random.default_rng((seed, number, index)))
    return root


def _objects(rng: np.random.Generator, height: int) -> list[dict[str, Any]]:
    """Return the objects of a street, far ones first, as the polygons files hold them."""
    width = 2 * height
    scenery = {"sky": (0, height), "building": (0.2 * height, 0.5 * height), "road": (0.5 * height, height)}
    objects = [
        {"label": label, "polygon": [[0, top], [width, top], [width, bottom], [0, bottom]]}
        for label, (top, bottom) in scenery.items()
    ]
    if rng.random() < 0.1:
        return objects
    labels, frequencies = list(THINGS), np.array([thing[0] for thing in THINGS.values()])
    for ground in np.sort(rng.uniform(0.52, 1.1, 6)):  # rows of things, from far to near
        scale, x = 0.9 * height * (ground - 0.4), rng.uniform(-0.3, 0.8) * width
        for label in rng.choice(labels, rng.integers(1, 4), p=frequencies / frequencies.sum()):
            wide, tall = scale * THINGS[label][1], scale * THINGS[label][2]
            corners = np.array([[0, 0], [0.1, -0.7], [0.3, -1], [0.7, -1], [0.95, -0.6], [1, 0]]) * (wide, tall)
            objects.append({"label": str(label), "polygon": (corners + (x, ground * height)).round(1).tolist()})
            x += wide + rng.choice([0, 0.3]) * scale
    return objects


def _write(root: Path, subset: str, index: int, side: int, rng: np.random.Generator) -> None:
    """Write the four files of one image."""
    sequence, city = divmod(index, len(CITIES[subset]))
    name = CITIES[subset][city]
    photo, gt = (root / kind / subset / name for kind in ("leftImg8bit", "gtFine"))
    photo.mkdir(parents=True, exist_ok=True)
    gt.mkdir(parents=True, exist_ok=True)
    stem, size, objects = f"{name}_{sequence:06d}_000019", (2 * side, side), _objects(rng, side)
    values = np.asarray(files.rasterise(size, objects))
    labels = np.where(values < files.UNIT, values, values // files.UNIT)
    colours = rng.integers(0, 256, (int(values.max()) + 1, 3))[values] + rng.integers(-9, 10, (side, 2 * side, 3))
    polygons = {"imgHeight": size[1], "imgWidth": size[0], "objects": objects}
    (gt / f"{stem}{files.POLYGONS}").write_text(json.dumps(polygons))
    Image.fromarray(values.astype(np.uint16)).save(gt / f"{stem}{files.INSTANCES}")
    Image.fromarray(labels.astype(np.uint8)).save(gt / f"{stem}_gtFine_labelIds.png")
    Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(photo / f"{stem}{files.IMAGE}", compress_level=1)
