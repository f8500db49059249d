"""Follow the outlines of masks."""

from __future__ import annotations

import contourpy
import numpy as np


def outlines(mask: np.ndarray, step: int = 1) -> list[np.ndarray]:
    """Return the closed outlines f64[n,2] of a mask bool[H,W], x y in px from the upper left corner of the image.

    A hole has an outline of its own, and corners are cut by half a pixel. Of every `step` pixels one is read.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return []
    top, left = rows[0] // step * step, columns[0] // step * step
    part = mask[top : rows[-1] + 1 : step, left : columns[-1] + 1 : step]
    found = []
    for points in contourpy.contour_generator(z=np.pad(part.astype(float), 1)).lines(0.5):
        corners = np.asarray(points)[:-1]
        before, after = corners - np.roll(corners, 1, 0), np.roll(corners, -1, 0) - corners
        turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
        # A pixel of the padded part lies at the centre of a pixel of the mask that is one to the left and above.
        found.append((corners[turns] - 0.5) * step + (left, top))
    return found
