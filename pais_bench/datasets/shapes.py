"""Draw synthetic data from a seed, to try a method in seconds: textured shapes in clutter.

A class is a shape and a texture. The hue depends on the shape; the mean colour does not depend on the texture. Objects
occlude each other, touch and leave the frame; strokes and plain blobs belong to no class; some images are empty, and
some hold a crowd region of many tiny shapes. With stuff, the background is a smooth sky above a grainy ground.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from pais_bench.annotations import rle
from pais_bench.annotations.store import Subset, write_store
from pais_bench.datasets._paint import Colour, Plane, outline, ripple, rotated, tint, tone
from pais_bench.study.base import StrictConfig

SHAPES = ("disc", "ring", "triangle", "star")
TEXTURES = ("plain", "striped")
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)
"""Names of the categories 1..8."""

EMPTY, CROWD, TOUCHING = 0.06, 0.04, 0.3
"""Probabilities that an image is empty or holds a crowd, and that an object is placed beside an earlier one."""
INSTANCES = (0.10, 0.18, 0.24, 0.20, 0.14, 0.09, 0.05)  # probabilities of 1..7 objects in an image that is not empty
SMALLEST, LARGEST = 0.3, 0.56  # range of an object's diameter, in image sizes: 29 to 54 px at 96
HUE = 0.03  # spread of the hues of a shape, in turns; the shapes' means are a quarter turn apart
TURN = 0.5  # largest rotation of an object in both directions, in radians
PERIOD = (0.11, 0.125)
"""Range of the distance between stripes, in image sizes: about 11 px at 96, three cells of a map of stride 4."""
CONTRAST = 0.25  # how much lighter and darker than its plain colour an object's stripes are
VISIBLE, VISIBLE_PIXELS = 0.5, 24
"""Every object keeps at least this fraction and this number of its pixels; a layer that hides more is not drawn."""
AREA = {"disc": 1.0, "ring": 1.1, "triangle": 1.3, "star": 1.3}
"""Radius of a shape relative to a disc's, so that its area tells less."""

STUFF = ("sky", "ground")
"""Names of the categories 9 and 10, where there is stuff."""
HORIZON = (0.3, 0.7)
"""Range of the height of the ground's edge, in image heights, and of its slope, a third of what is between them."""
ALONE = 0.1
"""Probability that sky or ground fills an image."""
GRAIN = 0.12
"""Standard deviation of the ground's brightness from cell to cell, which the sky has not."""


class Options(StrictConfig):
    """Set the number of images, their approximate size in pixels, the seed, and whether the background is stuff."""

    train: int = Field(default=1200, ge=1, le=1_000_000)
    val: int = Field(default=240, ge=1, le=1_000_000)
    size: int = Field(default=96, ge=64, le=512)
    seed: int = Field(default=0, ge=0)
    stuff: bool = False


class Dataset:
    """Draw the images; image k is the same whatever the number of images."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep the options; root is not needed."""
        self.options = options

    def prepare(self, folder: Path, label: str, **ignored: object) -> None:
        """Write the images and the store of both subsets into a folder; there is nothing to repair or to verify."""
        drawing, images = folder / "images.partial", folder / "images"
        shutil.rmtree(drawing, ignore_errors=True)
        subsets = {
            "train": self._draw(drawing, images, "train", 0, self.options.train),
            "val": self._draw(drawing, images, "val", 1, self.options.val),
        }
        shutil.rmtree(images, ignore_errors=True)
        drawing.replace(images)
        write_store(folder, label, subsets)

    def _draw(self, drawing: Path, images: Path, name: str, number: int, count: int) -> Subset:
        (drawing / name).mkdir(parents=True)
        records: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            rng = np.random.default_rng((self.options.seed, number, index))
            scene = (SceneWithStuff if self.options.stuff else Scene)(rng, self.options.size)
            image_id = number * 1_000_000 + index + 1
            file_name = f"{image_id:07d}.png"
            Image.fromarray(scene.pixels()).save(drawing / name / file_name, compress_level=1)
            records.append({"id": image_id, "file_name": file_name, "height": scene.height, "width": scene.width})
            for record in scene.annotations():
                annotation_id = number * 10_000_000 + len(annotations) + 1
                annotations.append({"id": annotation_id, "image_id": image_id, **record})
        names = (*CLASSES, *STUFF) if self.options.stuff else CLASSES
        categories: list[dict[str, Any]] = [{"id": label, "name": name} for label, name in enumerate(names, start=1)]
        for category in categories if self.options.stuff else ():
            category["isthing"] = int(category["name"] in CLASSES)
        return Subset(f"shapes {name}", images / name, records, annotations, categories)


class Scene:
    """Paint one image back to front, and keep which layer is on top at every pixel."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        """Draw background, clutter, at most one crowd, objects, and strokes across them."""
        self.rng, self.size = rng, size
        self.height = int(rng.integers(round(size * 5 / 6), round(size * 13 / 12) + 1))
        self.width = int(rng.integers(round(size * 11 / 12), round(size * 13 / 12) + 1))
        self.y, self.x = np.mgrid[: self.height, : self.width] + 0.5
        self.canvas = self._background()
        self.top = np.full((self.height, self.width), -1)
        self.layers: list[tuple[int, bool, int]] = []
        self.placed: list[tuple[float, float, float]] = []
        self._populate()

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the image u8[H,W,3] RGB."""
        noisy = self.canvas + self.rng.normal(0, 0.02, self.canvas.shape)
        return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)

    def annotations(self) -> list[dict[str, Any]]:
        """Return the COCO record of every layer's visible pixels, without ids."""
        return [
            {"category_id": category, "iscrowd": int(crowd), **region(self.top == layer, crowd)}
            for layer, (category, crowd, _) in enumerate(self.layers)
        ]

    def _populate(self) -> None:
        empty, crowd = self.rng.random(2) < (EMPTY, CROWD)
        count = 0 if empty else int(self.rng.choice(len(INSTANCES), p=INSTANCES)) + 1
        for _ in range(self.rng.integers(0, 2)):
            self._blob()
        for _ in range(self.rng.integers(0, 3)):
            self._stroke()
        if crowd and not empty:
            self._crowd()
        for _ in range(count):
            self._object()
        for _ in range(self.rng.integers(0, 2)):
            self._stroke()

    def _background(self) -> Plane:
        """Return a gradient of two tones with smooth noise f64[3,H,W]."""
        turn = self.rng.uniform(0, 2 * math.pi)
        x, y = self.x / self.width - 0.5, self.y / self.height - 0.5
        ramp = 0.5 + (x * math.cos(turn) + y * math.sin(turn)) / 1.5
        low, high = (self._plain(0.3, 0.7, saturation=0.3) for _ in range(2))
        return np.asarray(low + (high - low) * ramp + self._smooth(self.rng.normal(0, 0.1, (7, 7))))

    def _smooth(self, coarse: Plane) -> Plane:
        """Interpolate a coarse grid bilinearly over the canvas."""
        rows, columns = coarse.shape
        v, u = (self.y / self.height) * (rows - 1), (self.x / self.width) * (columns - 1)
        i, j = v.astype(int), u.astype(int)
        a, b = v - i, u - j
        upper = coarse[i, j] * (1 - b) + coarse[i, j + 1] * b
        lower = coarse[i + 1, j] * (1 - b) + coarse[i + 1, j + 1] * b
        return np.asarray(upper * (1 - a) + lower * a)

    def _object(self) -> None:
        """Draw one instance, or none if 8 positions hide too much of other instances."""
        category = int(self.rng.integers(len(CLASSES))) + 1
        radius = self.size * SMALLEST / 2 * (LARGEST / SMALLEST) ** self.rng.random()
        texture = self._texture(category)
        for _ in range(8):
            x, y = self._position(radius)
            if self._cover(self._outline(category, x, y, radius), texture, category):
                self.placed.append((x, y, radius))
                return

    def _crowd(self) -> None:
        """Draw a cluster of tiny shapes of one class as one region."""
        category = int(self.rng.integers(len(CLASSES))) + 1
        x, y = self.rng.uniform(0.3, 0.7, 2) * (self.width, self.height)
        spread, texture = self.rng.uniform(0.1, 0.15) * self.size, self._texture(category, scale=0.7)
        nearest = np.full(self.x.shape, np.inf)
        for _ in range(self.rng.integers(14, 26)):
            dx, dy = self.rng.normal(0, spread, 2)
            radius = self.size * self.rng.uniform(0.03, 0.045)
            nearest = np.minimum(nearest, self._outline(category, x + dx, y + dy, radius))
        self._cover(nearest, texture, category, crowd=True)

    def _blob(self) -> None:
        """Draw a plain lobed patch: no texture, no class."""
        x, y = self.rng.random(2) * (self.width, self.height)
        radius, lobes, phase = self.size * self.rng.uniform(0.05, 0.2), self.rng.integers(2, 5), self.rng.uniform(0, 7)
        angle = np.arctan2(self.y - y, self.x - x)
        edge = radius * (1 + 0.25 * np.sin(lobes * angle + phase))
        self._cover(np.hypot(self.x - x, self.y - y) - edge, self._plain(0.15, 0.85, saturation=0.4))

    def _stroke(self) -> None:
        """Draw a straight line of 1 to 4 px: no class, and it may cross an object."""
        (x, y), (u, v) = self.rng.random((2, 2)) * (self.width, self.height)
        length = math.hypot(u - x, v - y) + 1e-9
        along = np.clip(((self.x - x) * (u - x) + (self.y - y) * (v - y)) / length, 0, length)
        apart = np.hypot(self.x - x - along * (u - x) / length, self.y - y - along * (v - y) / length)
        thickness = self.size * self.rng.uniform(0.012, 0.04)
        self._cover(apart - thickness / 2, self._plain(0.1, 0.9))

    def _plain(self, low: float, high: float, saturation: float = 0.8) -> Colour:
        """Draw a colour of any hue with a luma in a range."""
        return tone(self.rng.random(), saturation * self.rng.random(), self.rng.uniform(low, high))

    def _position(self, radius: float) -> tuple[float, float]:
        """Return a centre at which the object may leave the frame; often beside an earlier object."""
        limits = np.array([self.width, self.height], dtype=float)
        centre = self.rng.uniform(0.5 * radius, limits - 0.5 * radius)
        if self.placed and self.rng.random() < TOUCHING:
            x, y, other = self.placed[self.rng.integers(len(self.placed))]
            turn, reach = self.rng.uniform(0, 2 * math.pi), (radius + other) * self.rng.uniform(0.75, 1.0)
            beside = (x + reach * math.cos(turn), y + reach * math.sin(turn))
            centre = np.clip(beside, 0.5 * radius, limits - 0.5 * radius)
        return float(centre[0]), float(centre[1])

    def _outline(self, category: int, x: float, y: float, radius: float) -> Plane:
        """Return the signed distance f64[H,W] in px, negative inside, to a rotated and stretched shape."""
        shape, turn = SHAPES[(category - 1) // len(TEXTURES)], self.rng.uniform(-TURN, TURN)
        stretch = math.exp(self.rng.uniform(-0.2, 0.2))
        u, v = rotated(self.x - x, self.y - y, turn)
        return outline(shape, u * stretch, v / stretch, radius * AREA[shape])

    def _texture(self, category: int, scale: float = 1.0) -> Plane:
        """Return the colour f64[3,H,W] of a class: plain, or stripes of the same mean."""
        hue = ((category - 1) // len(TEXTURES) / len(SHAPES) + self.rng.normal(0, HUE)) % 1
        paint = 0.3 + 0.4 * tint(hue) + self.rng.uniform(-0.05, 0.05)
        if TEXTURES[(category - 1) % len(TEXTURES)] == "plain":
            return np.asarray(paint + 0 * self.x)
        period = scale * self.size * self.rng.uniform(*PERIOD)
        along, _ = rotated(self.x, self.y, self.rng.uniform(0, 2 * math.pi))
        return np.asarray(paint + CONTRAST * ripple(along + self.rng.uniform(0, period), period))

    def _cover(self, distance: Plane, colour: Plane | Colour, category: int = 0, *, crowd: bool = False) -> bool:
        """Paint a layer, unless too little of it or of an earlier object would be visible; return whether it did.

        Category 0 is clutter, which hides objects but is not annotated.
        """
        inside, layer = distance < 0, len(self.layers)
        top = np.where(inside, layer if category else -1, self.top)
        layers = [*self.layers, (category, crowd, int(inside.sum()))] if category else self.layers
        visible = np.bincount(top.ravel() + 1, minlength=len(layers) + 1)[1:]
        if any(
            count < max(VISIBLE * area, VISIBLE_PIXELS) for count, (_, _, area) in zip(visible, layers, strict=True)
        ):
            return False
        self.canvas += (colour - self.canvas) * np.clip(0.5 - distance, 0, 1)
        self.top, self.layers = top, layers
        return True


class SceneWithStuff(Scene):
    """Paint one image on a background of stuff, regions that layers cover like objects; clutter is void."""

    def _populate(self) -> None:
        """Paint sky and ground as the first layers, then what every image has."""
        edge, slope = self.rng.uniform(*HORIZON), self.rng.uniform(-1, 1) * (HORIZON[1] - HORIZON[0]) / 3
        edge += float(self.rng.choice([-2, 0, 2], p=[ALONE / 2, 1 - ALONE, ALONE / 2]))
        below = self.y / self.height > edge + slope * (self.x / self.width - 0.5)
        grain = np.repeat(np.repeat(self.rng.normal(0, GRAIN, (64, 64)), self.size // 32, 0), self.size // 32, 1)
        self.canvas += np.where(below, grain[: self.height, : self.width], 0)
        for category, inside in enumerate((~below, below), start=len(CLASSES) + 1):
            if inside.any():
                self.top[inside] = len(self.layers)
                self.layers.append((category, False, 0))
        super()._populate()


def region(mask: npt.NDArray[np.bool_], crowd: bool) -> dict[str, Any]:
    """Return segmentation, bbox and area of a mask bool[H,W] that is not empty; a crowd's counts are uncompressed."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    counts = _runs(mask) if crowd else rle.describe_mask(mask)["segmentation"]["counts"]
    return {
        "segmentation": {"size": list(mask.shape), "counts": counts},
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
    }


def _runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the runs down the columns of a mask; the first run is of zeros and may have length 0."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(pixels))
    return [int(run) for run in np.diff([0, *changes, mask.size])]
