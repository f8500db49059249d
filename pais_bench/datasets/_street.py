"""What stands on a street? Things in metres, seen through a pinhole camera: an outline to annotate and faces to paint.

X is to the right of the camera, Y above the ground, Z ahead. A thing is made at Z of its nearest face.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
Points = list[Point]
Colour = tuple[float, float, float]

HEIGHT = 1.3  # of the camera above the ground, in metres
GLASS, TYRE, SKIN = (0.16, 0.20, 0.25), (0.07, 0.07, 0.08), (0.80, 0.62, 0.50)
PAINTS: tuple[Colour, ...] = (
    *((0.88, 0.89, 0.90), (0.66, 0.68, 0.70), (0.40, 0.42, 0.45), (0.13, 0.14, 0.16), (0.10, 0.15, 0.30)),
    *((0.62, 0.10, 0.11), (0.14, 0.32, 0.58), (0.15, 0.30, 0.22), (0.72, 0.64, 0.48)),
)
CLOTHES: tuple[Colour, ...] = (
    *((0.12, 0.13, 0.18), (0.18, 0.24, 0.42), (0.55, 0.14, 0.16), (0.80, 0.78, 0.72), (0.30, 0.36, 0.26)),
    *((0.78, 0.56, 0.18), (0.36, 0.34, 0.36), (0.20, 0.42, 0.48)),
)
# Width, height, length in metres and the height of the chassis of what is a box.
BOXES = {
    "truck": (2.45, 3.3, 8.0, 0.55),
    "bus": (2.5, 3.1, 11.5, 0.35),
    "train": (2.6, 3.5, 24.0, 0.25),
    "caravan": (2.2, 2.5, 5.5, 0.4),
    "trailer": (1.9, 1.5, 3.2, 0.5),
}


class Camera(NamedTuple):
    """Project points in metres to pixels."""

    centre: float
    horizon: float
    focal: float

    def at(self, x: float, y: float, z: float) -> Point:
        """Give the pixel (x, y) of a point."""
        return self.centre + self.focal * x / z, self.horizon + self.focal * (HEIGHT - y) / z

    def all(self, corners: Iterable[tuple[float, float, float]]) -> Points:
        """Give the pixels of corners."""
        return [self.at(*corner) for corner in corners]


@dataclass
class Thing:
    """Hold an annotated outline, the faces painted in order, what is painted below it, and how far away it is."""

    label: str
    outline: Points
    depth: float
    faces: list[tuple[Points, Colour]] = field(default_factory=list)
    shadow: Points = field(default_factory=list)
    plate: Points = field(default_factory=list)


def shade(colour: Colour, factor: float) -> Colour:
    """Give a colour lighter or darker."""
    red, green, blue = (min(1.0, one * factor) for one in colour)
    return red, green, blue


def hull(points: Sequence[Point]) -> Points:
    """Give the convex hull, by Andrew's monotone chain."""
    ordered = sorted(set(points))
    halves: list[Points] = []
    for run in (ordered, ordered[::-1]):
        half: Points = []
        for x, y in run:
            while len(half) > 1 and _turn(half[-2], half[-1], (x, y)) <= 0:
                half.pop()
            half.append((x, y))
        halves.append(half[:-1])
    return halves[0] + halves[1]


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def arc(x: float, y: float, radius: float, first: float, last: float, steps: int = 12) -> Points:
    """Give points on a circle, angles in degrees."""
    angles = np.radians(np.linspace(first, last, steps))
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def rectangle(x: float, y: float, half: float, tall: float) -> Points:
    """Give the corners around a centre, of half a width and half a height."""
    return [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]


def car(camera: Camera, rng: np.random.Generator, x: float, z: float, ahead: bool) -> Thing:
    """Make a car; ahead shows its back, else its front."""
    colour = PAINTS[rng.integers(len(PAINTS))]
    half, tall, length = rng.uniform(0.86, 0.95), rng.uniform(1.4, 1.62), rng.uniform(3.9, 4.6)
    belt, roof = 0.58 * tall, 0.72 * half
    # The boot is short and the bonnet long: the cabin sits nearer to the back.
    front, back = (0.04, 0.70) if ahead else (0.30, 0.96)
    low = [(x + s * half, y, z + t * length) for s in (-1, 1) for y in (0.2, belt) for t in (0, 1)]
    top = [(x + s * roof, tall, z + t * length) for s in (-1, 1) for t in (front + 0.1, back - 0.1)]
    wheels = [(x + s * half * 0.97, 0.0, z + t * length) for s in (-1, 1) for t in (0.15, 0.85)]
    outline = hull(camera.all(low + top + wheels))
    side = x - math.copysign(half, x)
    inner = x - math.copysign(roof, x)
    faces: list[tuple[Points, Colour]] = [(outline, shade(colour, 0.72))]
    for s in (-1, 1):
        left, right = sorted((x + s * half * 0.95, x + s * half * 0.62))
        faces.append((camera.all(_upright(left, right, 0.0, 0.4, z + 0.1)), TYRE))
    if abs(x) > half:
        window = [(side, belt, z + front * length), (side, belt, z + back * length)]
        window += [(inner, tall * 0.96, z + (back - 0.1) * length), (inner, tall * 0.96, z + (front + 0.1) * length)]
        faces.append((camera.all(window), GLASS))
        faces += [(_wheel(camera, side, z + t * length, 0.33), TYRE) for t in (0.19, 0.81)]
    slope = front * length
    glass = [(x - half * 0.88, belt, z + slope), (x + half * 0.88, belt, z + slope)]
    glass += [(x + roof * 0.92, tall * 0.95, z + slope + 0.4), (x - roof * 0.92, tall * 0.95, z + slope + 0.4)]
    roofing = [(x + s * roof, tall, z + t * length) for s, t in ((-1, front + 0.1), (1, front + 0.1))]
    roofing += [(x + s * roof, tall, z + t * length) for s, t in ((1, back - 0.1), (-1, back - 0.1))]
    bonnet = [
        (x - half, belt, z),
        (x + half, belt, z),
        (x + half * 0.9, belt, z + slope),
        (x - half * 0.9, belt, z + slope),
    ]
    faces += [(camera.all(roofing), shade(colour, 1.1)), (camera.all(bonnet), shade(colour, 1.15))]
    faces += [(camera.all(glass), shade(GLASS, 1.3 if ahead else 1.6))]
    faces.append((camera.all(_upright(x - half, x + half, 0.22, belt, z)), colour))
    faces.append((camera.all(_upright(x - half, x + half, 0.22, 0.42, z)), shade(colour, 0.6)))
    lamp = (0.72, 0.05, 0.06) if ahead else (0.97, 0.95, 0.85)
    for s in (-1, 1):
        left, right = sorted((x + s * half * 0.97, x + s * half * 0.66))
        faces.append((camera.all(_upright(left, right, belt - 0.24, belt - 0.06, z)), lamp))
    plate = camera.all(_upright(x - 0.26, x + 0.26, 0.46, 0.57, z))
    faces.append((plate, (0.92, 0.92, 0.88)))
    return Thing("car", outline, z, faces, _shadow(camera, x, half, z, length), plate)


def box(camera: Camera, rng: np.random.Generator, label: str, x: float, z: float, ahead: bool) -> Thing:
    """Make a truck, bus, train, caravan or trailer."""
    width, tall, length, floor = BOXES[label]
    half, colour = width / 2, PAINTS[rng.integers(len(PAINTS))]
    if label == "caravan":
        colour = (0.90, 0.89, 0.84)
    side = x - math.copysign(half, x)
    body = [(x + s * half, y, z + t * length) for s in (-1, 1) for y in (floor, tall) for t in (0, 1)]
    feet = [(x + s * half * 0.95, 0.0, z + t * length) for s in (-1, 1) for t in (0.12, 0.9)]
    outline = hull(camera.all(body + feet))
    faces: list[tuple[Points, Colour]] = [(outline, shade(TYRE, 1.6))]
    if abs(x) > half:
        faces.append((camera.all(_along(side, floor, tall, z, z + length)), shade(colour, 0.75)))
        faces += [(_wheel(camera, side, z + t * length, 0.48), TYRE) for t in (0.14, 0.75, 0.9)]
        if label in ("bus", "train"):
            for start in np.arange(0.4, length - 1.2, 1.7):
                pane = _along(side, tall * 0.48, tall * 0.82, z + start, z + start + 1.5)
                faces.append((camera.all(pane), GLASS))
            faces.append((camera.all(_along(side, floor, floor + 0.3, z, z + length)), shade(colour, 0.5)))
    faces.append((camera.all(_upright(x - half, x + half, floor, tall, z)), colour))
    if label == "truck" and ahead:
        faces.append((camera.all(_upright(x - 0.03, x + 0.03, floor + 0.2, tall - 0.1, z)), shade(colour, 0.6)))
        faces.append((camera.all(_upright(x - half, x + half, floor, floor + 0.18, z)), TYRE))
    elif label != "trailer":
        faces.append((camera.all(_upright(x - half * 0.88, x + half * 0.88, tall * 0.48, tall * 0.84, z)), GLASS))
    if label == "bus":
        faces.append(
            (camera.all(_upright(x - half * 0.6, x + half * 0.6, tall * 0.88, tall * 0.97, z)), (0.9, 0.6, 0.1))
        )
    lamp = (0.75, 0.06, 0.06) if ahead else (0.97, 0.95, 0.85)
    for s in (-1, 1):
        left, right = sorted((x + s * half * 0.92, x + s * half * 0.72))
        faces.append((camera.all(_upright(left, right, floor + 0.2, floor + 0.42, z)), lamp))
    return Thing(label, outline, z, faces, _shadow(camera, x, half, z, length))


def person(camera: Camera, rng: np.random.Generator, x: float, z: float) -> Thing:
    """Make somebody who stands or walks."""
    step, size = rng.uniform(0.4, 1.8), rng.uniform(0.9, 1.08)
    coat, legs, hair = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=3))
    foot = 0.19 * step
    right = [(foot, 0.0), (0.18, 0.85), (0.25, 0.92), (0.27, 1.32), (0.19, 1.46), (0.06, 1.5)]
    left = [(-u, v) for u, v in right[::-1]]
    trousers = [(-foot - 0.08, 0.0), (-foot + 0.06, 0.0), (0.0, 0.7), (foot - 0.06, 0.0), (foot + 0.08, 0.0)]
    trousers += [(0.18, 0.88), (-0.18, 0.88)]
    head = arc(0, 1.62, 0.125, -70, 250)
    outline = trousers[:5] + right[1:] + head + left[:-1]
    parts = [(trousers, legs), (right[1:] + left[:-1], coat), (arc(0, 1.62, 0.125, 0, 360), SKIN)]
    parts.append((arc(0, 1.65, 0.125, 10, 170), shade(hair, 0.6)))
    return _flat(camera, "person", outline, parts, x, z, size, 0.3)


def cycle(camera: Camera, rng: np.random.Generator, label: str, x: float, z: float, way: int) -> Thing:
    """Make a bicycle or motorcycle seen from its side; way is 1 if it goes to the right, else -1."""
    colour = shade(PAINTS[rng.integers(len(PAINTS))], 0.9)
    radius = 0.34 if label == "bicycle" else 0.32
    far = 0.53 if label == "bicycle" else 0.68
    outline = arc(-far, radius, radius, 310, 60) + [
        (-0.35, 0.97),
        (-0.12, 0.97),
        (0.0, 0.78),
        (0.34, 1.06),
        (0.48, 1.0),
    ]
    outline += arc(far, radius, radius, 120, -130) + [(0.06, 0.16), (-0.06, 0.16)]
    parts: list[tuple[Points, Colour]] = []
    for place in (-far, far):
        parts += [(arc(place, radius, radius, 0, 360, 20), TYRE)]
        parts += [(arc(place, radius, radius * 0.8, 0, 360, 20), (0.42, 0.42, 0.42))]
    if label == "motorcycle":
        parts.append(([(-0.6, 0.75), (-0.3, 0.3), (0.3, 0.25), (0.45, 0.9), (0.2, 0.95), (-0.1, 0.8)], colour))
    else:
        bars = [((-0.53, 0.34), (0.0, 0.3)), ((0.0, 0.3), (-0.24, 0.92)), ((-0.2, 0.75), (0.38, 0.8))]
        bars += [((0.0, 0.3), (0.38, 0.8)), ((0.53, 0.34), (0.38, 1.02)), ((-0.53, 0.34), (-0.2, 0.75))]
        parts += [([(a, b - 0.03), (c, d - 0.03), (c, d + 0.03), (a, b + 0.03)], colour) for (a, b), (c, d) in bars]
    parts.append(([(-0.36, 0.9), (-0.12, 0.9), (-0.12, 0.97), (-0.36, 0.97)], TYRE))
    return _flat(camera, label, outline, parts, x, z, 1.0, 0.8, way)


def rider(camera: Camera, rng: np.random.Generator, x: float, z: float, way: int) -> Thing:
    """Make who sits on a bicycle or motorcycle at the same place; a hand's breadth nearer, so that it is in front."""
    coat, legs, helmet = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=3))
    thigh = [(-0.30, 0.95), (0.08, 0.92), (0.2, 0.75), (0.06, 0.18), (-0.06, 0.18), (0.02, 0.7), (-0.2, 0.8)]
    torso = [
        (-0.34, 0.92),
        (-0.02, 0.92),
        (0.16, 1.22),
        (0.4, 1.04),
        (0.44, 1.12),
        (0.2, 1.44),
        (0.06, 1.5),
        (-0.12, 1.4),
    ]
    head = arc(0.17, 1.6, 0.125, 0, 360)
    outline = [
        (-0.34, 0.92),
        (-0.2, 0.8),
        (0.02, 0.7),
        (-0.06, 0.18),
        (0.06, 0.18),
        (0.2, 0.75),
        (0.06, 0.95),
        (0.16, 1.22),
    ]
    outline += [(0.4, 1.04), (0.44, 1.12), (0.2, 1.44), *arc(0.17, 1.6, 0.125, -70, 230), (0.06, 1.5), (-0.12, 1.4)]
    parts = [(thigh, legs), (torso, coat), (head, SKIN), (arc(0.17, 1.63, 0.13, -10, 190), helmet)]
    return _flat(camera, "rider", outline, parts, x, z - 0.1, 1.0, 0.0, way)


def group(label: str, members: Sequence[Thing]) -> Thing:
    """Make one region of things that are not told apart; the farthest is painted first."""
    ordered = sorted(members, key=lambda one: -one.depth)
    outline = hull([point for one in ordered for point in one.outline])
    return Thing(f"{label}group", outline, ordered[-1].depth, [face for one in ordered for face in one.faces])


def _flat(
    camera: Camera,
    label: str,
    outline: Points,
    parts: Sequence[tuple[Points, Colour]],
    x: float,
    z: float,
    size: float,
    half: float,
    way: int = 1,
) -> Thing:
    """Stand a drawing in metres upright at a place."""
    placed = [
        camera.all((x + way * size * u, size * v, z) for u, v in one) for one in (outline, *(p for p, _ in parts))
    ]
    faces = list(zip(placed[1:], (colour for _, colour in parts), strict=True))
    return Thing(label, placed[0], z, faces, _shadow(camera, x, half, z - 0.15, 0.3) if half else [])


def _upright(left: float, right: float, low: float, high: float, z: float) -> list[tuple[float, float, float]]:
    return [(left, low, z), (right, low, z), (right, high, z), (left, high, z)]


def _along(x: float, low: float, high: float, near: float, far: float) -> list[tuple[float, float, float]]:
    return [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]


def _wheel(camera: Camera, x: float, z: float, radius: float) -> Points:
    return camera.all((x, v, u) for u, v in arc(z, radius, radius, 0, 360))


def _shadow(camera: Camera, x: float, half: float, z: float, length: float) -> Points:
    edge = half * 1.12
    near, far = z - 0.15, z + length
    return camera.all([(x - edge, 0, near), (x + edge, 0, near), (x + edge, 0, far), (x - edge, 0, far)])
