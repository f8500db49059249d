"""What is the Cityscapes AP of these predictions? cityscapesscripts, the official code, answers; imports no torch.

It is not COCO AP: objects below 100 pixels and detections on void or groups are ignored, detections have no limit, and
precision is integrated without envelope. Category ids are label ids.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from pais_bench.pixels import decode
from pais_bench.types import BenchError

PROTOCOLS = {"cityscapes": "cityscapesScripts AP"}
Record = dict[str, Any]
ROAD = 7
"""The label of every pixel without object: one that is not void, or detections there would be ignored."""


class _NumPy:
    """Give NumPy as the script (2.3.0) knows it: with in1d, and counts that json can write."""

    in1d = staticmethod(np.isin)

    @staticmethod
    def count_nonzero(values: NDArray[Any]) -> int:
        return int(np.count_nonzero(values))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def evaluate(
    truth: Record | Path,
    records: Sequence[Record],
    image_ids: Iterable[int] | None = None,
    gtfine: Path | None = None,
) -> dict[str, dict[str, float | None]]:
    """Give {"cityscapes": {"AP", "AP50"}, "cityscapes_per_class": {class: AP}} as fractions, None where undefined.

    Arguments are those of metrics/coco.py; crowd records are groups. gtfine is a part's folder of the official truth
    (gtFine/val). Without it truth images are drawn from the records, which have no void but groups: a detection on
    void then counts as wrong. AP50m and AP100m need distances, which the published annotations lack. Raises BenchError
    without cityscapesscripts, for a category that is none of its, and for a truth image that is absent.
    """
    script = _script()
    content = json.loads(truth.read_text()) if isinstance(truth, Path) else truth
    _check_categories(content, script)
    chosen = {image["id"] for image in content["images"]} if image_ids is None else set(image_ids)
    with tempfile.TemporaryDirectory() as name:
        # An absolute path without links, as the script compares prefixes.
        folder = Path(name).resolve()
        pairs = _write(folder, content, records, chosen, gtfine)
        found = _run(script, folder, pairs)
    averages = found["averages"]
    return {
        "cityscapes": {"AP": _defined(averages["allAp"]), "AP50": _defined(averages["allAp50%"])},
        "cityscapes_per_class": {name: _defined(one["ap"]) for name, one in averages["classes"].items()},
    }


def options(root: Path | None) -> dict[str, Path | None]:
    """Give the arguments of evaluate that follow from a dataset's root: the official truth of val, if it is there."""
    places = [root / archive / "gtFine" / "val" for archive in (".", "gtFine_trainvaltest")] if root else []
    return {"gtfine": next((place for place in places if place.is_dir()), None)}


def _script() -> Any:
    try:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as script
    except ModuleNotFoundError as error:
        raise BenchError(
            f"metrics/cityscapes: the package '{error.name}' is not installed; install cityscapesscripts, or leave "
            f"'cityscapes' out of the study's metrics"
        ) from error
    return script


def _check_categories(truth: Record, script: Any) -> None:
    known = {label.id: label.name for label in script.labels if label.hasInstances and not label.ignoreInEval}
    for category in truth["categories"]:
        if known.get(category["id"]) != category["name"]:
            raise BenchError(
                f"metrics/cityscapes: category {category['id']} '{category['name']}' is not a Cityscapes class with "
                f"instances; leave 'cityscapes' out of the study's metrics"
            )


def _write(
    folder: Path, truth: Record, records: Sequence[Record], chosen: set[int], gtfine: Path | None
) -> list[tuple[str, str]]:
    """Write truth and predictions of every image as the script wants them; give (prediction, truth) paths."""
    notes, found = defaultdict(list), defaultdict(list)
    for note in truth["annotations"]:
        notes[note["image_id"]].append(note)
    for record in records:
        found[record["image_id"]].append(record)
    pairs = []
    for image in truth["images"]:
        if image["id"] not in chosen:
            continue
        if gtfine is None:
            place = folder / f"truth_{image['id']}.png"
            Image.fromarray(_instance_ids(notes[image["id"]], image["height"], image["width"])).save(place)
        else:
            place = gtfine / image["file_name"].replace("leftImg8bit.png", "gtFine_instanceIds.png")
            if not place.is_file():
                raise BenchError(f"{place}: no such truth image; unzip gtFine_trainvaltest.zip again")
        lines = []
        for number, record in enumerate(found[image["id"]]):
            mask = folder / f"image_{image['id']}_{number}.png"
            Image.fromarray(rle.decode(record["segmentation"]) * np.uint8(255)).save(mask, compress_level=1)
            lines.append(f"{mask.name} {record['category_id']} {record['score']!r}\n")
        listed = folder / f"image_{image['id']}.txt"
        listed.write_text("".join(lines))
        pairs.append((str(listed), str(place)))
    return pairs


def _instance_ids(notes: Sequence[Record], height: int, width: int) -> NDArray[np.uint16]:
    """Draw gtFine's instanceIds u16[H,W]: label * 1000 + number for an object, the label alone for a group."""
    ids = np.full((height, width), ROAD, dtype=np.uint16)
    counts: defaultdict[int, int] = defaultdict(int)
    for note in sorted(notes, key=lambda note: -int(note["iscrowd"])):
        label = note["category_id"]
        drawn = decode(note["segmentation"], (height, width))
        ids[drawn] = label if note["iscrowd"] else 1000 * label + counts[label]
        counts[label] += not note["iscrowd"]
    return ids


def _run(script: Any, folder: Path, pairs: Sequence[tuple[str, str]]) -> Record:
    """Run the script in a folder of its own: it writes matches.json where it stands and caches the truth."""
    script.np = _NumPy()
    script.args.predictionPath = str(folder)
    script.args.gtInstancesFile = str(folder / "gtInstances.json")
    script.args.JSONOutput, script.args.quiet = False, True
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Of classes that no image has, it takes the mean of nothing.
            warnings.simplefilter("ignore")
            found: Record = script.evaluateImgLists([one for one, _ in pairs], [two for _, two in pairs], script.args)
    finally:
        os.chdir(before)
    return found


def _defined(value: Any) -> float | None:
    number = float(np.asarray(value).reshape(-1)[0])
    return None if math.isnan(number) else number
