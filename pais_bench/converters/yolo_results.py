"""Convert YOLO's segmentation predictions, `class x1 y1 x2 y2 ... confidence` a line, to COCO results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pais_bench.annotations.complete import fill_from_mask
from pais_bench.converters.formats.base import read_lines
from pais_bench.converters.yolo_fractions import read_fractions
from pais_bench.converters.yolo_names import read_names
from pais_bench.errors import BenchError


def read_names_by_number(path: Path) -> dict[int, str]:
    """Return the names by YOLO's class number, of data.yaml or of a text file with one a line."""
    return {number - 1: name for number, name in read_names(path).items()}


class YoloResults:
    """Read a folder of predictions against a ground truth; files are those of its images by name without suffix.

    without_file is the number of images without predictions, left_out that of lines without an area.
    """

    def __init__(self, folder: Path, names: Mapping[int, str], ground_truth: Mapping[str, Any]) -> None:
        """Match files and classes; raise BenchError for a class or a file that the ground truth does not have."""
        self.left_out = 0
        ids = {category["name"]: category["id"] for category in ground_truth["categories"]}
        if unknown := [name for name in names.values() if name not in ids]:
            raise BenchError(
                f"class '{unknown[0]}' is none of the ground truth ({', '.join(ids)}); give the same names"
            )
        self._category_ids = {number: ids[name] for number, name in names.items()}
        self._images: dict[str, Mapping[str, Any]] = {}
        for image in ground_truth["images"]:
            stem = PurePosixPath(image["file_name"]).stem
            if self._images.setdefault(stem, image) is not image:
                raise BenchError(f"{image['file_name']}: another image of the ground truth is named {stem}; rename one")
        self._files = sorted(folder.glob("*.txt"))
        if not self._files:
            raise BenchError(f"{folder}: no text file; name the folder of labels that YOLO wrote")
        for path in self._files:
            if path.stem not in self._images:
                raise BenchError(f"{path}: no image of the ground truth has this name; give its own ground truth")
        self.without_file = len(self._images) - len(self._files)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield COCO records, polygons as they are; raise BenchError for a line without a confidence."""
        for path in self._files:
            image = self._images[path.stem]
            for number, line in enumerate(read_lines(path), start=1):
                if fields := line.split():
                    yield from self._record(fields, image, f"{path}: line {number}")

    def _record(self, fields: list[str], image: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
        values = read_fractions(fields[1:], place)
        if len(values) % 2 == 0:
            raise BenchError(f"{place}: no confidence after the points; predict with save_conf=True")
        *points, score = values
        if not fields[0].isdecimal() or int(fields[0]) not in self._category_ids:
            raise BenchError(f"{place}: the class '{fields[0][:20]}' is not among the names; give those of the network")
        if len(points) < 6:
            self.left_out += 1
            return
        height, width = image["height"], image["width"]
        polygon = [value * (width, height)[index % 2] for index, value in enumerate(points)]
        record = {"image_id": image["id"], "category_id": self._category_ids[int(fields[0])], "score": score}
        yield fill_from_mask({**record, "segmentation": [polygon]}, ["bbox"], (height, width))
