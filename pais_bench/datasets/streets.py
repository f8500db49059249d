"""What can Cityscapes be tried on in seconds? Drawn streets in its own files and folders, read as Cityscapes is read.

Cars are frequent and trains rare; parked cars touch, things hide each other, far ones are tiny, some rows of cars and
clusters of people are groups, and some streets are deserted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

import pais_bench.datasets._cityscapes as files
from pais_bench.config import Frozen
from pais_bench.datasets._scene import Street
from pais_bench.store import Tell, silent, write_store

CITIES = {"train": ("aachen", "bochum", "ulm"), "val": ("frankfurt", "lindau")}


class Options(Frozen):
    """Say how many images of 2 size x size px to draw, from which seed."""

    train: int = Field(default=120, ge=1, le=100_000)
    val: int = Field(default=30, ge=1, le=100_000)
    size: int = Field(default=128, ge=64, le=1024)
    seed: int = Field(default=0, ge=0)


class Dataset:
    """Draw a tree of Cityscapes and prepare it; image k is the same whatever the number of images."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep the options; root is not needed."""
        self.options = options

    def prepare(self, folder: Path, label: str, repair: bool = False, tell: Tell = silent) -> None:
        """Write the tree and the store of both parts into a folder; what is drawn needs no repair."""
        drawing, tree = folder / "tree.partial", folder / "tree"
        shutil.rmtree(drawing, ignore_errors=True)
        for place, (part, count) in enumerate((("train", self.options.train), ("val", self.options.val))):
            for index in range(count):
                self._write(drawing, part, index, np.random.default_rng((self.options.seed, place, index)))
        shutil.rmtree(tree, ignore_errors=True)
        drawing.replace(tree)
        parts = {}
        for part in CITIES:
            images = tree / "leftImg8bit" / part
            frames = files.find(images)
            parts[part] = files.read(images, files.annotated(frames, tree / "gtFine" / part), tell)
        write_store(folder, label, parts, repair, tell)

    def _write(self, tree: Path, part: str, index: int, rng: np.random.Generator) -> None:
        """Write the four files of one image."""
        sequence, city = divmod(index, len(CITIES[part]))
        name = CITIES[part][city]
        photo, truth = (tree / kind / part / name for kind in ("leftImg8bit", "gtFine"))
        for one in (photo, truth):
            one.mkdir(parents=True, exist_ok=True)
        stem, size = f"{name}_{sequence:06d}_000019", (2 * self.options.size, self.options.size)
        scene = Street(rng, *size)
        objects = scene.objects()
        polygons = {"imgHeight": size[1], "imgWidth": size[0], "objects": objects}
        values = np.asarray(files.draw(size, objects))
        labels = np.where(values < files.UNIT, values, values // files.UNIT)
        (truth / f"{stem}{files.POLYGONS}").write_text(json.dumps(polygons))
        Image.fromarray(values.astype(np.uint16)).save(truth / f"{stem}{files.INSTANCES}")
        Image.fromarray(labels.astype(np.uint8)).save(truth / f"{stem}_gtFine_labelIds.png")
        Image.fromarray(scene.pixels()).save(photo / f"{stem}{files.IMAGE}", compress_level=1)
