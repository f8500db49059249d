"""Prepare Cityscapes: its finely annotated images of 21 cities as COCO records, in eight classes, or 19 with stuff.

Source: gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip of cityscapes-dataset.com, unzipped as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pais_bench.annotations.repair import DroppedRecord
from pais_bench.annotations.sources import Sources
from pais_bench.annotations.store import ProgressCallback, Subset, ignore_progress, write_store
from pais_bench.datasets._cityscapes import Frame, find_annotations, find_frames, read_subset
from pais_bench.datasets._image_files import report_copies
from pais_bench.errors import BenchError
from pais_bench.images.check import verify_if
from pais_bench.study.base import StrictConfig

CITIES = {
    "train": {
        **{"aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221},
        **{"erfurt": 109, "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94},
        **{"strasbourg": 365, "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122},
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
}
"""Images of each city: 2,975 for training, 500 for validation."""
ARCHIVES = {"gtFine": "gtFine_trainvaltest", "leftImg8bit": "leftImg8bit_trainvaltest"}
_CONTENT = f"holds {' and '.join(ARCHIVES)}"
_NO_FILE = ("image without an annotation file", "gtFine has neither its instances nor its polygons")


class Options(StrictConfig):
    """Set whether every image of every city is required, and whether stuff, such as road, is read too."""

    complete: bool = True
    stuff: bool = False


class Dataset:
    """Read the official archives, unzipped into the root or each into a folder of its name."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep the folder of the data; raise BenchError if no root is given."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that {_CONTENT}")
        self.options, self.root = options, root

    def sources(self) -> Sources:
        """Return the folders that the dataset is read from, in either layout."""
        gt, images = (
            tuple(str(Path(*base, kind, subset)) for base in ((), (ARCHIVES[kind],)) for subset in CITIES)
            for kind in ("gtFine", "leftImg8bit")
        )
        return Sources(self.root, gt, images)

    def prepare(
        self,
        folder: Path,
        label: str,
        repair: bool = False,
        progress: ProgressCallback = ignore_progress,
        verify_images: bool | None = None,
    ) -> None:
        """Write the store of both subsets into a folder; the images stay where they are.

        verify_images: decode every image; None does so too, unless there are more than images.check allows by default.
        A repair leaves images without an annotation file out, and lists them in repaired.json. Raises BenchError that
        names the archive, the city or the file of the first thing that is missing or wrong.
        """
        if not self.root.is_dir():
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that {_CONTENT}")
        folders = {name: (self._folder("leftImg8bit", name), self._folder("gtFine", name)) for name in CITIES}
        frames = {name: find_frames(images) for name, (images, _) in folders.items()}
        if self.options.complete:
            for name, (images, _) in folders.items():
                _require_cities(images, name, frames[name])
        decode = verify_if(verify_images, sum(map(len, frames.values())), progress)
        subsets: dict[str, Subset] = {}
        for name, (images, gt) in folders.items():
            sources = find_annotations(frames[name], gt)
            missing = [(index, frame.image) for index, frame in enumerate(frames[name]) if frame not in sources]
            if missing and not (repair and sources):
                raise BenchError(
                    f"{gt}: {len(missing)} of the {len(frames[name])} images of {images} have no annotation file, the "
                    f"first: {', '.join(image for _, image in missing[:3])}; unzip {ARCHIVES['gtFine']}.zip again, or "
                    f"leave these images out with --repair"
                )
            dropped = [DroppedRecord("images", index, *_NO_FILE, {"file_name": image}) for index, image in missing]
            subsets[name] = replace(read_subset(images, sources, decode, progress, self.options.stuff), dropped=dropped)
        report_copies(subsets, progress)
        write_store(folder, label, subsets, repair, progress)

    def _folder(self, kind: str, subset: str) -> Path:
        """Return the folder of a subset in either layout; raise BenchError if there is none."""
        for base in (self.root, self.root / ARCHIVES[kind]):
            if (base / kind / subset).is_dir():
                return base / kind / subset
        raise BenchError(
            f"{self.root}: has no folder {kind}/{subset}; unzip {ARCHIVES[kind]}.zip of cityscapes-dataset.com, which "
            f"needs a login, into {self.root}"
        )


def _require_cities(images: Path, subset: str, frames: list[Frame]) -> None:
    """Raise BenchError that names every city of a subset whose number of images is not the official one."""
    actual, expected = Counter(frame.city for frame in frames), CITIES[subset]
    differences = [
        f"{city} has {actual[city]} instead of {expected.get(city, 0)}"
        for city in sorted({*actual, *expected})
        if actual[city] != expected.get(city, 0)
    ]
    if differences:
        raise BenchError(
            f"{images}: {len(frames)} images instead of {sum(expected.values())}: {', '.join(differences)}; unzip "
            f"{ARCHIVES['leftImg8bit']}.zip again, or set dataset.options.complete to false"
        )
