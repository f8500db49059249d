"""Decode image files as upright RGB of 8 bits, whatever their depth, mode and EXIF orientation.

docs/reference/images.md has the table of modes and the rule for orientations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from pais_bench.errors import REMEDIES, BenchError

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""(H, W) in pixels."""

PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
"""Modes of Pillow that it converts to RGB itself; transparency is left out."""
WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
"""Modes of 16 bits a pixel."""
FORMATS_OF_16_BITS = ("PNG", "PPM")
"""Formats whose pixels have at most 16 bits, also where Pillow's mode is I."""
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262  # tags of TIFF and EXIF
FULL_DEPTH = {12: 2**12 - 1, 16: 2**16 - 1}

TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
"""How pixels u8[H,W,3] are turned upright for each EXIF orientation; from 5 on height and width are exchanged."""
INVERSE = {6: 8, 8: 6}

# Sizes are compared with the records before a file is decoded, and dataset.options limits them. Pillow's own limit
# warns at 90 megapixels, which aerial images have.
Image.MAX_IMAGE_PIXELS = None


class UnreadableImage(BenchError):
    """Report a missing or damaged image file, but not a fault of the disk or the network."""


class UnsupportedImage(UnreadableImage):
    """Report a sound image file whose mode or range has no agreed meaning as 8-bit RGB."""


class Header(NamedTuple):
    """Hold what a file says before it is decoded: (H, W) as stored, EXIF orientation 1..8, and whether it has pages."""

    stored: Size
    orientation: int
    mode: str
    paged: bool

    @property
    def upright(self) -> Size:
        """Return (H, W) of the image as viewers show it."""
        return self.stored if self.orientation < 5 else self.stored[::-1]

    @property
    def ambiguous(self) -> bool:
        """Return whether the orientation changes the image but not its size."""
        return self.orientation > 1 and self.upright == self.stored

    def is_turned(self, size: Size | None) -> bool | None:
        """Return whether records of this size describe the upright image; None where they describe neither."""
        if size is None or size == self.upright:
            return True
        return False if size == self.stored else None

    def describe(self) -> str:
        """Return width x height, of an image that lies on its side also those as stored."""
        (height, width), note = self.upright, ""
        if self.upright != self.stored:
            note = f" ({self.stored[1]} x {self.stored[0]} before its EXIF orientation)"
        return f"{width} x {height} pixels{note}"


def read_header(path: Path) -> Header:
    """Read a file's header; raise UnreadableImage if it is no image, UnsupportedImage for an unknown mode."""
    with _opened(path) as file:
        return _header(file, path)


def read_pixels(path: Path, size: Size | None = None, record: str = "its record") -> Pixels:
    """Decode a file as RGB u8[H,W,3].

    size is (H, W) of its record. Where it is the size of the file as stored, the annotations were drawn on an image
    that was not turned, so that the EXIF orientation is ignored. Raises UnreadableImage for a damaged file, and
    BenchError for another size, before anything is decoded.
    """
    with _opened(path) as file:
        header = _header(file, path)
        turned = header.is_turned(size)
        if turned is None and size is not None:
            raise BenchError(
                f"{path}: {header.describe()}, but {record} is {size[1]} x {size[0]} in the annotations; "
                f"replace the file, or correct the record"
            )
        pixels = _decode(file, path)
        if file.format == "TIFF":  # Pillow turns these itself
            if not turned:
                pixels = TURNS[INVERSE.get(header.orientation, header.orientation)](pixels)
        elif turned:
            pixels = TURNS[header.orientation](pixels)
        return np.ascontiguousarray(pixels)


def read_thumbnail(path: Path, side: int) -> Pixels:
    """Decode a file as upright grey u8[side,side], whatever its shape; of a JPEG only as many pixels as are needed."""
    with _opened(path) as file:
        header = _header(file, path)
        file.draft("L", (2 * side, 2 * side))
        image = file.convert("L") if file.mode in PLAIN else Image.fromarray(_decode(file, path)).convert("L")
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2))
        return pixels if file.format == "TIFF" else TURNS[header.orientation](pixels)


def verify(path: Path) -> int | None:
    """Decode a file whole; return the greatest value 0..255 that an integer image of more than 8 bits gets, or None.

    Raises UnreadableImage where it is damaged: truncated, or a JPEG whose end was filled with zeros.
    """
    with _opened(path) as file:
        _header(file, path)
        if file.mode in WIDE or file.mode == "I":
            return int(_decode(file, path).max())
        if file.mode == "F":
            _decode(file, path)  # refuses other ranges than 0..1
        file.load()
        if file.format == "JPEG":
            _require_end(path)
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries set it, and grey would be learnt
    try:
        with Image.open(path) as file:
            yield file
    except (BenchError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path}: no such image; put it there") from error
    except PermissionError as error:
        raise BenchError(f"{path}: may not be read; ask for the right to read it") from error
    except Exception as error:  # Pillow's readers raise anything for a damaged header
        if isinstance(error, OSError) and error.errno in REMEDIES:
            raise  # of the disk or the network: the file may be sound
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{path}: unreadable image ({reason}); replace the file") from error


def _header(file: ImageFile.ImageFile, path: Path) -> Header:
    if file.mode not in (*PLAIN, *WIDE, "I", "F"):
        raise UnsupportedImage(f"{path}: an image of mode {file.mode}; save it as RGB")
    orientation, (width, height) = _orientation(file), file.size
    exchanged = file.format == "TIFF" and orientation >= 5
    stored = (width, height) if exchanged else (height, width)
    # The second picture of an MPO file, which phones write, is a preview.
    return Header(stored, orientation, file.mode, file.format != "MPO" and getattr(file, "is_animated", False))


def _orientation(file: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation, 1 where there is none or it cannot be read, as viewers do."""
    if file.format == "PNG" and not {"exif", "Raw profile type exif"} & set(file.info):
        return 1  # Pillow would decode the file to look behind the pixels
    try:
        value = file.getexif().get(ORIENTATION)
    except Exception:  # whatever damaged EXIF data lead to
        return 1
    return value if value in TURNS else 1


def _decode(file: ImageFile.ImageFile, path: Path) -> Pixels:
    """Decode an opened file as RGB u8[H,W,3], not turned but for TIFF."""
    if file.mode == "RGB":
        return np.array(file)
    if file.mode in PLAIN:
        transparent = file.mode == "P" and "transparency" in file.info
        return np.array((file.convert("RGBA") if transparent else file).convert("RGB"))
    grey = _unit_float(file, path) if file.mode == "F" else _integers(file, path)
    return np.repeat(255 - grey if _white_is_zero(file) else grey, 3).reshape(*grey.shape, 3)


def _integers(file: ImageFile.ImageFile, path: Path) -> Pixels:
    """Scale integers by the depth of their file to u8[H,W]."""
    if file.mode == "I" and file.format not in FORMATS_OF_16_BITS:
        kind = "32-bit integers or signed 16-bit ones"
        raise UnsupportedImage(f"{path}: an image of {kind}, which have no agreed white; save it as 8 bits")
    bits = _tags(file).get(BITS_PER_SAMPLE, (16,))[0]
    return np.asarray(_to_8_bits(bits)[np.asarray(file)])


@lru_cache
def _to_8_bits(bits: int) -> Pixels:
    """Return the table of all values of 12 or 16 bits, rounded to 8: 257 k becomes k."""
    values = np.arange(2**16).clip(max=FULL_DEPTH[bits])
    return np.round(values * 255 / FULL_DEPTH[bits]).astype(np.uint8)


def _unit_float(file: ImageFile.ImageFile, path: Path) -> Pixels:
    """Scale floats of 0..1 to u8[H,W]; raise UnsupportedImage for any other range."""
    values = np.asarray(file)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is in no range
        raise UnsupportedImage(
            f"{path}: floats from {low:g} to {high:g}; scale them to 0..1, or save the image as 8 bits"
        )
    return np.round(values * 255).astype(np.uint8)


def _white_is_zero(file: ImageFile.ImageFile) -> bool:
    return bool(_tags(file).get(PHOTOMETRIC) == 0)  # Pillow inverts 8 bits, but neither 16 nor floats


def _tags(file: ImageFile.ImageFile) -> Any:
    return getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}


def _require_end(path: Path) -> None:
    """Raise UnreadableImage for a JPEG that ends in zeros instead of its end marker; libjpeg fills the rest in."""
    with path.open("rb") as content:
        content.seek(max(0, path.stat().st_size - 4096))
        tail = content.read()
    filled = len(tail) - len(tail.rstrip(b"\0"))
    if filled and not tail.rstrip(b"\0").endswith(b"\xff\xd9") and filled > min(64, len(tail) // 2):
        raise UnreadableImage(f"{path}: unreadable image (its end is filled with zeros); replace the file")
