"""Read a mask file for each object: ID/images/PHOTO and ID/masks/*.png, as the Data Science Bowl 2018 has them.

Every pixel of a mask that is not 0 is of the object, of a mask with soft edges those above 127. An object is of the
class that the command names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pais_bench.converters.formats.base import (
    BACKGROUND,
    ConverterBase,
    Item,
    LeftOut,
    Object,
    Photo,
    is_in_corners,
    mask_of,
    photo_size,
    photos_by_stem,
    read_values,
)
from pais_bench.errors import BenchError
from pais_bench.images.files import folders_below, role_of

WHITE = 255


class Converter(ConverterBase):
    """Read the folders of all photos; one without a folder of masks is not labelled, and is left out with a note."""

    single_object = "every photo has one mask; where it is of several objects, give each its own"

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether the first folder of masks lies beside one with a single photo, of another name."""
        masks = next(_mask_folders(folder), None)
        if masks is None:
            return False
        photos = photos_by_stem(masks.parent / "images")
        return len(photos) == 1 and not set(photos) & set(photos_by_stem(masks))

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos by subset; raise BenchError unless every folder of masks has one photo."""
        self.classes = {1: self.class_name}
        found: dict[str, list[Item]] = {}
        for masks in _mask_folders(self.folder):
            photos = list(photos_by_stem(masks.parent / "images").values())
            if len(photos) != 1:
                raise BenchError(f"{masks.parent / 'images'}: {len(photos)} photos; leave the one that {masks} is of")
            labels = sorted(photos_by_stem(masks).values())
            found.setdefault(role_of(masks.parent.relative_to(self.folder)), []).append(Item(photos[0], labels))
        labelled = sum(map(len, found.values()))
        if others := len(folders_below(self.folder, "images")) - labelled:
            self.notes.append(f"left out: {others} folders with photos but no masks")
        return found

    def read(self, item: Item) -> Photo:
        """Read the masks of a photo; one without a pixel is left out."""
        objects, left_out, doubts, size = [], [], set(), photo_size(item.photo, item.photo, None)
        for position, path in enumerate(item.labels):
            values = _read_brightness(path)
            # Resized masks, and those that once were a JPEG, have grey edges, which are wider than the object.
            is_soft = values.max() == WHITE and len(np.unique(values)) > 2
            mask = values > WHITE // 2 if is_soft else values != 0
            if is_soft:
                kind = "grey edges of masks, values up to 127 of 255"
                left_out.append(LeftOut(kind, str(path), may_be_object=False))
            if position == 0:
                size = photo_size(item.photo, path, mask.shape)
            elif mask.shape != size:
                raise BenchError(f"{path}: another size than {item.labels[0].name}; draw it on the same photo")
            if mask.any():
                objects.append(Object(self.class_name, mask_of(mask)))
                doubts |= {BACKGROUND} if is_in_corners(mask) else set()
            else:
                left_out.append(LeftOut("masks without a pixel", str(path), may_be_object=False))
        return Photo(item.photo, size, objects, left_out, sorted(doubts))


def _mask_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of masks that have a folder of images beside them."""
    return (path for path in folders_below(folder, "masks") if (path.parent / "images").is_dir())


def _read_brightness(path: Path) -> np.ndarray:
    """Return the values [H,W] of a mask: the opacity of a cut-out, else the brightest of a pixel's colours."""
    values = read_values(path)
    with Image.open(path) as file:
        if file.mode in ("P", "PA"):  # where the object is white, its number may be 0
            colours = np.asarray(file.convert("RGBA"))
            if (colours != colours[0, 0]).any():  # else the palette has no colours, and the numbers tell
                values = colours
    if values.ndim == 2:
        return values
    if values.shape[-1] in (2, 4):
        values, opacity = values[..., :-1], values[..., -1]
        if opacity.min() < opacity.max():
            return opacity
    return np.asarray(values.max(axis=-1))
