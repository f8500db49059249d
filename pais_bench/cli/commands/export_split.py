"""Write a split as Soft Teacher's pair of annotation files, which mmdetection and its relatives read.

The pair is instances_train2017.FOLD@PERCENT.json and the same with -unlabeled; as Soft Teacher does, the second keeps
the annotations of its images. Label noise of the split is in the first.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench.cli import context
from pais_bench.splits import label_noise
from pais_bench.splits.split import Split


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the split, and the folder of the pair."""
    context.add_study(parser)
    context.add_results(parser)
    context.add_split(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pair")


def run(arguments: Namespace) -> None:
    """Write both files; raise BenchError where the split is missing, or not of the prepared dataset."""
    study, results = context.read_study(arguments), arguments.results
    store = context.open_store(study, results, "train")
    split = context.read_checked_split(study.dataset.label, context.find_split(study, arguments), results, store)
    gt = store.coco_dict()
    name = f"instances_train2017.{split.fold}@{split.percent:g}"
    for stem, labelled in ((name, True), (f"{name}-unlabeled", False)):
        subset = _subset(gt, split, labelled)
        path = arguments.out / f"{stem}.json"
        context.write_json(path, subset)
        print(f"{path}: {len(subset['images'])} images, {len(subset['annotations'])} annotations")


def _subset(gt: dict[str, Any], split: Split, labelled: bool) -> dict[str, Any]:
    """Return the labelled or the other images in the order of the source file, with the keys that Soft Teacher uses."""
    ids = set(split.ids)
    images = [image for image in gt["images"] if (image["id"] in ids) == labelled]
    anns = [ann for ann in gt["annotations"] if (ann["image_id"] in ids) == labelled]
    if labelled and split.label_noise:
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        anns = [noisy for ann in anns for noisy in label_noise.apply(split, [ann], sizes[ann["image_id"]])]
    return {
        "images": images,
        "annotations": anns,
        "licenses": gt.get("licenses", []),
        "categories": gt["categories"],
        "info": gt.get("info", {}),
    }
