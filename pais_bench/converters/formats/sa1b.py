"""Read the JSON files of SA-1B, one for each photo, whose masks are RLE and of no class.

Masks are kept pixel by pixel; a whole, its parts and theirs overlap. An object is of the class that the command names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.formats.base import ConverterBase, Object, Photo, photo_size
from pais_bench.errors import BenchError
from pais_bench.images.files import files_with, role_of

WORDS = (b'"image"', b'"annotations"', b'"predicted_iou"', b'"stability_score"')
"""Keys of a file; the last two are what SAM says of a mask."""


class Converter(ConverterBase):
    """Read the JSON files below a folder; each names its photo."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a JSON file has masks of SAM."""
        return any(files_with(folder, ".json", *WORDS))

    def subsets(self) -> Mapping[str, Sequence[Path]]:
        """Return the JSON files by subset."""
        self.classes = {1: self.class_name}
        self.notes.append("SA-1B's masks are of no class, and those of parts lie on those of wholes")
        found: dict[str, list[Path]] = {}
        for path in files_with(self.folder, ".json", *WORDS):
            found.setdefault(role_of(path.relative_to(self.folder).parent), []).append(path)
        return found

    def read(self, item: Path) -> Photo:
        """Read the masks of a photo."""
        content: Any = read_json_file(item)
        image = content.get("image") if isinstance(content, dict) else None
        records = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or not isinstance(records, list):
            raise BenchError(f"{item}: has no image with a file_name, or no annotations; fetch the file again")
        photo = self.find_photo(item, image["file_name"])
        size = photo_size(photo, item, stated_size(image.get("height"), image.get("width")))
        masks = [record.get("segmentation") if isinstance(record, dict) else None for record in records]
        return Photo(photo, size, [Object(self.class_name, mask) for mask in masks], place=str(item))
