"""Where do things stand on a drawn street? Its layout, its objects as polygons, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

import pais_bench.datasets._street as street
from pais_bench.datasets._street import Camera, Colour, Points, Thing

DESERTED, GROUPED = 0.08, 0.2  # chances of a street without instances, and of one with a group
TRAFFIC = {
    **{"car": 0.50, "truck": 0.12, "bus": 0.09, "bicycle": 0.12, "motorcycle": 0.07},
    **{"train": 0.04, "caravan": 0.03, "trailer": 0.03},
}
"""Chances of what drives; a cycle has a rider."""
OVER = 3  # samples per pixel and direction of the picture
HAZE = 110.0  # metres in which colours fade by 1 / e


class Street:
    """Lay out one street, the farthest thing first."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        """Draw the road, what stands beside it, and unless it is deserted what moves and parks on it."""
        self.rng, self.size = rng, (width, height)
        horizon = height * rng.uniform(0.40, 0.46)
        self.camera = Camera(width * rng.uniform(0.44, 0.56), horizon, width * rng.uniform(0.95, 1.1))
        self.road, self.walk = rng.uniform(4.6, 6.2), rng.uniform(2.2, 3.6)
        self.light = rng.uniform(0.85, 1.12)
        self.sky: Colour = ((0.62, 0.70, 0.80), (0.78, 0.80, 0.82), (0.50, 0.66, 0.86))[rng.integers(3)]
        self.ground: list[Thing] = []
        self.things: list[Thing] = []
        self._lay_ground()
        self._line_sides()
        if rng.random() >= DESERTED:
            self._park()
            self._drive()
            self._walk()
        self.things.sort(key=lambda one: -one.depth)

    def objects(self) -> list[dict[str, Any]]:
        """Give the objects of the polygons file, in the order in which they are drawn."""
        found = []
        for one in (*self.ground, *self.things, self._bonnet()):
            for label, points in ((one.label, one.outline), ("license plate", one.plate)):
                if points:
                    found.append({"label": label, "polygon": [[round(x), round(y)] for x, y in points]})
        return found

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Give the picture u8[H,W,3] RGB."""
        width, height = self.size
        canvas = Image.new("RGB", (OVER * width, OVER * height))
        pen = ImageDraw.Draw(canvas)
        for one in (*self.ground, *self.things, self._bonnet()):
            if one.shadow:
                pen.polygon(_scaled(one.shadow), fill=_bytes((0.16, 0.16, 0.17)))
            fade = 1 - np.exp(-one.depth / HAZE) if one.label != "sky" else 0.0
            for points, colour in one.faces:
                tint = [(1 - fade) * c + fade * s for c, s in zip(colour, self.sky, strict=True)]
                pen.polygon(_scaled(points), fill=_bytes((tint[0], tint[1], tint[2])))
        picture = np.asarray(canvas.resize(self.size, Image.Resampling.BOX), dtype=float) / 255
        coarse = self.rng.normal(0, 1, (height // 4 + 1, width // 4 + 1))
        patches = Image.fromarray(coarse.astype(np.float32)).resize(self.size, Image.Resampling.BICUBIC)
        grain = 0.006 * np.asarray(patches)[..., None] + self.rng.normal(0, 0.012, picture.shape)
        return np.round(np.clip(self.light * picture + grain, 0, 1) * 255).astype(np.uint8)

    def _add(self, label: str, outline: Points, depth: float, *faces: tuple[Points, Colour]) -> None:
        self.things.append(Thing(label, outline, depth, list(faces)))

    def _lay_ground(self) -> None:
        """Lay sky, terrain, pavements, road and its lines."""
        width, height = float(self.size[0]), float(self.size[1])
        middle = self.camera.horizon
        whole = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
        bands: list[tuple[Points, Colour]] = []
        for k in range(24):
            top, low = middle * k / 24, middle * (k + 1) / 24 + 1
            bands.append(
                ([(0.0, top), (width, top), (width, low), (0.0, low)], street.shade(self.sky, 0.85 + 0.22 * k / 24))
            )
        self.ground.append(Thing("sky", whole, 0, bands))
        for label, half, colour in (
            ("terrain", 60.0, (0.36, 0.42, 0.26)),
            ("sidewalk", self.road + self.walk, (0.55, 0.54, 0.53)),
            ("road", self.road, (0.33, 0.33, 0.35)),
        ):
            plane = self._strip(-half, half, 1.5, 400)
            self.ground.append(Thing(label, plane, 0, [(plane, colour)]))
        for z in np.arange(3 + self.rng.uniform(0, 4), 70, 6.0):
            self.ground[-1].faces.append((self._strip(-0.08, 0.08, z, z + 3), (0.80, 0.80, 0.78)))
        for edge in (-self.road, self.road - 0.16):
            self.ground[-1].faces.append((self._strip(edge, edge + 0.16, 1.5, 120), (0.62, 0.62, 0.61)))

    def _strip(self, left: float, right: float, near: float, far: float) -> Points:
        return self.camera.all([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)])

    def _line_sides(self) -> None:
        """Set houses, trees and poles along both sides, and a line of trees at the end."""
        rng, back = self.rng, self.road + self.walk
        width = self.size[0]
        tops = [(x, self.camera.horizon - 0.02 * width * rng.uniform(0.3, 1.6)) for x in np.linspace(-5, width + 5, 40)]
        wood = [*tops, (width + 5, self.camera.horizon + 2), (-5.0, self.camera.horizon + 2)]
        self._add("vegetation", wood, 250, (wood, (0.26, 0.36, 0.22)))
        for side in (-1, 1):
            z = rng.uniform(2.5, 5.0)
            while z < 110:
                length = rng.uniform(8, 18)
                if rng.random() < 0.85:
                    self._house(side, back, z, z + length, rng.uniform(6, 15))
                z += length
            for z in np.arange(rng.uniform(9, 20), 80, rng.uniform(11, 22)):
                if rng.random() < 0.6:
                    self._tree(side * (self.road + 0.7 * self.walk), z)
            for z in np.arange(rng.uniform(8, 24), 70, rng.uniform(18, 30)):
                self._pole(side * (self.road + 0.35), z)

    def _house(self, side: int, back: float, near: float, far: float, tall: float) -> None:
        rng, camera = self.rng, self.camera
        wall: Colour = tuple(rng.uniform(0.55, 0.8) * np.array([1, rng.uniform(0.84, 0.98), rng.uniform(0.68, 0.95)]))
        x, deep = side * back, side * (back + 9)
        front = camera.all([(x, 0, near), (x, 0, far), (x, tall, far), (x, tall, near)])
        gable = camera.all([(x, 0, near), (deep, 0, near), (deep, tall, near), (x, tall, near)])
        faces = [(gable, street.shade(wall, 0.7)), (front, wall if side < 0 else street.shade(wall, 0.86))]
        for low in np.arange(1.0, tall - 2.0, 3.0):
            for start in np.arange(near + 0.9, far - 1.6, 2.6):
                pane = [(x, low, start), (x, low, start + 1.2), (x, low + 1.6, start + 1.2), (x, low + 1.6, start)]
                faces.append((camera.all(pane), street.shade(street.GLASS, rng.uniform(0.9, 2.2))))
        eaves = camera.all([(x, tall - 0.5, near), (x, tall - 0.5, far), (x, tall, far), (x, tall, near)])
        faces.append((eaves, (0.42, 0.26, 0.21)))
        # As far as its far end: whatever stands on the pavement is in front of the facade.
        self._add("building", street.hull(front + gable), far, *faces)

    def _tree(self, x: float, z: float) -> None:
        rng, tall, wide = self.rng, self.rng.uniform(4.5, 8), self.rng.uniform(1.3, 2.3)
        green: Colour = (rng.uniform(0.2, 0.32), rng.uniform(0.36, 0.46), rng.uniform(0.14, 0.22))
        trunk = self.camera.all([(x - 0.14, 0, z), (x + 0.14, 0, z), (x + 0.1, tall - 1, z), (x - 0.1, tall - 1, z)])
        crown = [
            (x + wide * r * np.cos(a), tall - 1 + wide * r * np.sin(a), z)
            for a, r in zip(np.linspace(0, 2 * np.pi, 22, endpoint=False), rng.uniform(0.82, 1.12, 22), strict=True)
        ]
        faces = [(trunk, (0.30, 0.24, 0.19)), (self.camera.all(crown), green)]
        for _ in range(9):
            a, r, s = rng.uniform(0, 2 * np.pi), wide * rng.uniform(0.1, 0.6), wide * rng.uniform(0.15, 0.35)
            blob = street.arc(x + r * np.cos(a), tall - 1 + r * np.sin(a), s, 0, 330)
            lit = street.shade(green, 1.0 + 0.35 * np.sin(a))
            faces.append((self.camera.all((u, v, z) for u, v in blob), lit))
        self._add("vegetation", trunk, z)
        self._add("vegetation", self.camera.all(crown), z, *faces)

    def _pole(self, x: float, z: float) -> None:
        kind = ("traffic sign", "traffic light", "lamp")[self.rng.integers(3)]
        tall = {"traffic sign": 2.6, "traffic light": 3.2, "lamp": 6.0}[kind]
        mast = self.camera.all([(x - 0.06, 0, z), (x + 0.06, 0, z), (x + 0.06, tall, z), (x - 0.06, tall, z)])
        self._add("pole", mast, z, (mast, (0.45, 0.46, 0.47)))
        if kind == "lamp":
            return
        sign = kind == "traffic sign"
        shape = street.arc(x, tall, 0.36, 0, 330) if sign else street.rectangle(x, tall, 0.17, 0.48)
        inner = street.arc(x, tall, 0.25, 0, 330) if sign else street.arc(x, tall + 0.28, 0.11, 0, 330)
        board, dot = (self.camera.all((u, v, z - 0.05) for u, v in one) for one in (shape, inner))
        colours: tuple[Colour, Colour] = (
            ((0.78, 0.1, 0.1), (0.95, 0.95, 0.95)) if sign else ((0.1, 0.1, 0.1), (0.9, 0.2, 0.1))
        )
        self._add(kind, board, z - 0.05, (board, colours[0]), (dot, colours[1]))

    def _park(self) -> None:
        """Park cars bumper to bumper on both sides, the far ones sometimes as one group."""
        rng = self.rng
        for side in (-1, 1):
            full, z, row = rng.uniform(0.2, 0.95), rng.uniform(5, 11), []
            last = rng.uniform(25, 60)
            while z < last:
                if rng.random() < full:
                    row.append(street.car(self.camera, rng, side * (self.road - 1.15), z, ahead=side > 0))
                z += rng.uniform(4.9, 5.8)
            self.things += [one for one in row if one.depth < 26]
            far = [one for one in row if one.depth >= 26]
            self.things += [street.group("car", far)] if len(far) > 1 and rng.random() < 2 * GROUPED else far

    def _drive(self) -> None:
        """Let up to five vehicles drive on two lanes."""
        rng = self.rng
        for lane in (-1, 1):
            z = rng.uniform(7, 22)
            for _ in range(rng.integers(0, 4)):
                label, x = str(rng.choice(list(TRAFFIC), p=list(TRAFFIC.values()))), lane * rng.uniform(1.4, 1.9)
                if label == "car":
                    self.things.append(street.car(self.camera, rng, x, z, ahead=lane > 0))
                elif label in street.BOXES:
                    self.things.append(
                        street.box(self.camera, rng, label, x, z + 3, ahead=lane > 0 or label == "trailer")
                    )
                else:
                    self._ride(label, x, z)
                z += rng.uniform(9, 22) + (26 if label == "train" else 10 if label in street.BOXES else 0)

    def _ride(self, label: str, x: float, z: float) -> None:
        way = int(self.rng.choice((-1, 1)))
        self.things.append(street.cycle(self.camera, self.rng, label, x, z, way))
        self.things.append(street.rider(self.camera, self.rng, x, z, way))

    def _walk(self) -> None:
        """Put people and parked bicycles on the pavements, sometimes a cluster as one group."""
        rng = self.rng
        for _ in range(rng.integers(1, 12)):
            x = rng.choice((-1, 1)) * (self.road + rng.uniform(0.4, self.walk - 0.4))
            self.things.append(street.person(self.camera, rng, x, 6 + 34 * rng.random() ** 1.4))
        if rng.random() < 0.25:
            self.things.append(street.person(self.camera, rng, rng.uniform(-3, 3), rng.uniform(9, 20)))
        for _ in range(rng.integers(0, 3)):
            x = rng.choice((-1, 1)) * (self.road + rng.uniform(0.5, self.walk - 0.8))
            self.things.append(street.cycle(self.camera, rng, "bicycle", x, rng.uniform(7, 26), 1))
        if rng.random() < GROUPED:
            x, z = rng.choice((-1, 1)) * (self.road + self.walk / 2), rng.uniform(18, 30)
            crowd = [street.person(self.camera, rng, x + 0.5 * k, z + rng.uniform(-1, 1)) for k in range(-2, 3)]
            self.things.append(street.group("person", crowd))

    def _bonnet(self) -> Thing:
        """Give the bonnet of the car that the camera is in."""
        width, height = self.size
        edge = [(width * u, height * (0.925 + 0.055 * (2 * u - 1) ** 2)) for u in np.linspace(0, 1, 17)]
        edge += [(float(width), float(height)), (0.0, float(height))]
        return Thing("ego vehicle", edge, 0, [(edge, (0.10, 0.11, 0.13))])


def _scaled(points: Points) -> Points:
    """Give pixel centres on the finer canvas."""
    return [(OVER * (x + 0.5), OVER * (y + 0.5)) for x, y in points]


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(255 * min(max(one, 0.0), 1.0)) for one in colour)
    return red, green, blue
