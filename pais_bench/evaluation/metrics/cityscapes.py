"""Compute Cityscapes AP with cityscapesscripts, the official code.

It is not COCO AP: objects below 100 pixels and detections on void or groups are ignored, the number of detections has
no limit, and precision is integrated without envelope. Category ids are label ids.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from pais_bench.annotations.rle import decode_mask
from pais_bench.errors import BenchError
from pais_bench.evaluation.metrics.base import MetricBase, Numbers, Record
from pais_bench.optional_packages import import_package

ROAD = 7
"""The label of every pixel without an object: it is not void, as detections on void are ignored."""


class _NumPy:
    """Offer NumPy as the script (2.3.0) expects it: with in1d, and counts that json can write."""

    in1d = staticmethod(np.isin)

    @staticmethod
    def count_nonzero(values: NDArray[Any]) -> int:
        return int(np.count_nonzero(values))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Metric(MetricBase):
    """Measure AP of masks by the official script."""

    protocols = {"cityscapes": "cityscapesScripts AP"}

    def require(self, classes: Sequence[Record] | None) -> None:
        """Raise BenchError without cityscapesscripts, and for classes, where they are known, that it does not have."""
        script = _script()
        _check_categories({"categories": classes or ()}, script)

    def evaluate(self, ground_truth: Record, records: Sequence[Record]) -> dict[str, Numbers]:
        """Return {"cityscapes": {"AP", "AP50"}, "cityscapes_per_class": {class: AP}}, 0..1, None where undefined.

        Crowd records are groups. Where root has the official ground truth of val, it is that. Without it the
        ground-truth images are rendered from the annotations, which have groups but no void: a detection on void then
        is a false positive. AP50m and AP100m need distances, which the published annotations lack. Raises BenchError
        without cityscapesscripts, for a category that it does not have, and for a missing ground-truth image.
        """
        script = _script()
        _check_categories(ground_truth, script)
        with tempfile.TemporaryDirectory() as name:
            # An absolute path without links, as the script compares prefixes.
            folder = Path(name).resolve()
            pairs = _write(folder, ground_truth, records, _official_ground_truth(self.root))
            averages = _run(script, folder, pairs)["averages"]
        return {
            "cityscapes": {"AP": _defined(averages["allAp"]), "AP50": _defined(averages["allAp50%"])},
            "cityscapes_per_class": {name: _defined(value["ap"]) for name, value in averages["classes"].items()},
        }


def _official_ground_truth(root: Path | None) -> Path | None:
    """Return the folder of val's official ground truth below the root of a dataset; None where there is none."""
    folders = [root / archive / "gtFine" / "val" for archive in (".", "gtFine_trainvaltest")] if root else []
    return next((folder for folder in folders if folder.is_dir()), None)


def _script() -> Any:
    remedy = "install cityscapesscripts there, or leave 'cityscapes' out of the study's metrics"
    return import_package(
        "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling", remedy, "metrics/cityscapes: "
    )


def _check_categories(ground_truth: Record, script: Any) -> None:
    known = {label.id: label.name for label in script.labels if label.hasInstances and not label.ignoreInEval}
    for category in ground_truth["categories"]:
        if known.get(category["id"]) != category["name"]:
            raise BenchError(
                f"metrics/cityscapes: category {category['id']} '{category['name']}' is not a Cityscapes class with "
                f"instances; leave 'cityscapes' out of the study's metrics"
            )


def _write(folder: Path, ground_truth: Record, records: Sequence[Record], gtfine: Path | None) -> list[tuple[str, str]]:
    """Write ground truth and predictions of every image as the script reads them; return (prediction, gt) paths."""
    annotations, detections = defaultdict(list), defaultdict(list)
    for annotation in ground_truth["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    for record in records:
        detections[record["image_id"]].append(record)
    pairs = []
    for image in ground_truth["images"]:
        if gtfine is None:
            gt_path = folder / f"gt_{image['id']}.png"
            Image.fromarray(_instance_ids(annotations[image["id"]], image["height"], image["width"])).save(gt_path)
        else:
            gt_path = gtfine / image["file_name"].replace("leftImg8bit.png", "gtFine_instanceIds.png")
            if not gt_path.is_file():
                raise BenchError(f"{gt_path}: no such ground-truth image; unzip gtFine_trainvaltest.zip again")
        lines = []
        for number, record in enumerate(detections[image["id"]]):
            mask = folder / f"image_{image['id']}_{number}.png"
            Image.fromarray(rle.decode(record["segmentation"]) * np.uint8(255)).save(mask, compress_level=1)
            lines.append(f"{mask.name} {record['category_id']} {record['score']!r}\n")
        list_path = folder / f"image_{image['id']}.txt"
        list_path.write_text("".join(lines))
        pairs.append((str(list_path), str(gt_path)))
    return pairs


def _instance_ids(annotations: Sequence[Record], height: int, width: int) -> NDArray[np.uint16]:
    """Render gtFine's instanceIds u16[H,W]: label * 1000 + number for an object, the label alone for a group."""
    ids = np.full((height, width), ROAD, dtype=np.uint16)
    counts: defaultdict[int, int] = defaultdict(int)
    for annotation in sorted(annotations, key=lambda annotation: -int(annotation["iscrowd"])):
        label = annotation["category_id"]
        mask = decode_mask(annotation["segmentation"], (height, width))
        ids[mask] = label if annotation["iscrowd"] else 1000 * label + counts[label]
        counts[label] += not annotation["iscrowd"]
    return ids


def _run(script: Any, folder: Path, pairs: Sequence[tuple[str, str]]) -> Record:
    """Run the script in a folder of its own: it writes matches.json into the working directory and caches the gt."""
    script.np = _NumPy()
    script.args.predictionPath = str(folder)
    script.args.gtInstancesFile = str(folder / "gtInstances.json")
    script.args.JSONOutput, script.args.quiet = False, True
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # It takes a mean over nothing for classes that no image has.
            warnings.simplefilter("ignore")
            predictions, gt = ([pair[index] for pair in pairs] for index in (0, 1))
            result: Record = script.evaluateImgLists(predictions, gt, script.args)
    finally:
        os.chdir(before)
    return result


def _defined(value: Any) -> float | None:
    number = float(np.asarray(value).reshape(-1)[0])
    return None if math.isnan(number) else number
