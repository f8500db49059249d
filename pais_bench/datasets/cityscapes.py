"""What does Cityscapes hold? Its finely annotated images of 21 cities as COCO records, in eight classes.

Source: gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip of cityscapes-dataset.com, unzipped as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pais_bench.config import Frozen
from pais_bench.datasets._cityscapes import Frame, annotated, find, read
from pais_bench.store import Dropped, Part, Tell, silent, write_store
from pais_bench.types import BenchError

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
_HOLDS = f"holds {' and '.join(ARCHIVES)}"
_NO_FILE = ("image without an annotation file", "gtFine has neither its instances nor its polygons")


class Options(Frozen):
    """Say whether every image of every city must be there."""

    complete: bool = True


class Dataset:
    """Read the official archives, unzipped into the root or each into a folder of its name."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep where the data lies; raise BenchError where no root is given."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that {_HOLDS}")
        self.options, self.root = options, root

    def prepare(self, folder: Path, label: str, repair: bool = False, tell: Tell = silent) -> None:
        """Write the store of both parts into a folder; the images stay where they are.

        With repair an image without an annotation file is left out, and repaired.json lists it. Raises BenchError that
        names the archive, the city or the file of the first thing that is missing or wrong.
        """
        if not self.root.is_dir():
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that {_HOLDS}")
        places = {part: (self._place("leftImg8bit", part), self._place("gtFine", part)) for part in CITIES}
        found = {part: find(images) for part, (images, _) in places.items()}
        if self.options.complete:
            for part, frames in found.items():
                _require_cities(places[part][0], part, frames)
        parts: dict[str, Part] = {}
        for part, (images, truth) in places.items():
            sources = annotated(found[part], truth)
            bare = [(place, frame.image) for place, frame in enumerate(found[part]) if frame not in sources]
            if bare and not (repair and sources):
                raise BenchError(
                    f"{truth}: {len(bare)} of the {len(found[part])} images of {images} have no annotation file, the "
                    f"first: {', '.join(image for _, image in bare[:3])}; unzip {ARCHIVES['gtFine']}.zip again, or "
                    f"leave these images out with --repair"
                )
            dropped = [Dropped("images", place, *_NO_FILE, {"file_name": image}) for place, image in bare]
            parts[part] = replace(read(images, sources, tell), dropped=dropped)
        write_store(folder, label, parts, repair, tell)

    def _place(self, kind: str, part: str) -> Path:
        """Find the folder of a part in either layout."""
        for base in (self.root, self.root / ARCHIVES[kind]):
            if (base / kind / part).is_dir():
                return base / kind / part
        raise BenchError(
            f"{self.root}: has no folder {kind}/{part}; unzip {ARCHIVES[kind]}.zip of cityscapes-dataset.com, which "
            f"needs a login, into {self.root}"
        )


def _require_cities(images: Path, part: str, frames: list[Frame]) -> None:
    """Raise BenchError that names every city of a part whose number of images is not the official one."""
    found, expected = Counter(frame.city for frame in frames), CITIES[part]
    wrong = [
        f"{city} has {found[city]} instead of {expected.get(city, 0)}"
        for city in sorted({*found, *expected})
        if found[city] != expected.get(city, 0)
    ]
    if wrong:
        raise BenchError(
            f"{images}: {len(frames)} images instead of {sum(expected.values())}: {', '.join(wrong)}; unzip "
            f"{ARCHIVES['leftImg8bit']}.zip again, or set dataset.options.complete to false"
        )
