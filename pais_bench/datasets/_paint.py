"""Compute the distances and colours that synthetic images are painted with."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import numpy.typing as npt

ARMS = {"triangle": (3, 0.5), "star": (5, 0.45)}
"""Tips of a shape, and the radius of the notch between two of them; without a notch the edge is straight."""

Plane = npt.NDArray[np.float64]
Colour = npt.NDArray[np.float64]


def outline(shape: str, x: Plane, y: Plane, radius: float) -> Plane:
    """Return the signed distance to a shape around the origin: negative inside, in px near its edge."""
    distance = np.hypot(x, y)
    if shape == "disc":
        return distance - radius
    if shape == "ring":
        return np.abs(distance - 0.72 * radius) - 0.28 * radius
    arms, notch = ARMS[shape]
    half = math.pi / arms
    # In coordinates u along and v across the nearest arm, the outline is one line from the tip to the notch.
    u = np.max([rotated(x, y, 2 * half * arm)[0] for arm in range(arms)], axis=0)
    v = np.sqrt(np.maximum(distance**2 - u**2, 0))
    along, across = radius * (notch * math.cos(half) - 1), radius * notch * math.sin(half)
    return np.asarray(((u - radius) * across - v * along) / math.hypot(along, across))


def ripple(x: Plane, period: float) -> Plane:
    """Return a square wave -1..1 whose edges are about a pixel wide."""
    return np.clip(np.sin(x * (2 * math.pi / period)) * period / math.pi, -1, 1)


def rotated(x: Plane, y: Plane, turn: float) -> tuple[Plane, Plane]:
    """Rotate coordinates by an angle in radians."""
    return x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)


def tint(hue: float, saturation: float = 1.0) -> Colour:
    """Return the brightest colour f64[3,1,1] of a hue and a saturation, all 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue, saturation, 1.0))[:, None, None]


def tone(hue: float, saturation: float, luma: float) -> Colour:
    """Return the colour f64[3,1,1] of a hue, a saturation and a luma, all 0..1."""
    pure = tint(hue, saturation)
    bright = float(pure[:, 0, 0] @ (0.299, 0.587, 0.114))
    return pure * (luma / bright) if luma < bright else 1 - (1 - pure) * (1 - luma) / (1 - bright + 1e-9)
