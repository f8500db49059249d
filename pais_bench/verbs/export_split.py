"""Write a split as Soft Teacher's pair of annotation files, which mmdetection and its relatives read.

The pair is instances_train2017.FOLD@PERCENT.json and the same with -unlabeled; as Soft Teacher does, the second keeps
the annotations of its images. A corruption of the split is in the first.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench import corruptions, splits
from pais_bench.split_choice import SplitChoice
from pais_bench.store import Store, dataset_folder, write_text
from pais_bench.study_file import load_study


def add_arguments(parser: ArgumentParser) -> None:
    """Name the study, the split, and where the pair goes."""
    parser.add_argument("study", metavar="STUDY", help="study whose split is written")
    parser.add_argument("--percent", type=float, required=True, help="percent of the images that is labelled")
    parser.add_argument("--fold", type=int, required=True, help="fold")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pair")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(arguments: Namespace) -> None:
    """Write both files; raise BenchError where the split is not made, or not of the prepared dataset."""
    study = load_study(arguments.study)
    choice = SplitChoice(
        family=study.split.family,
        percent=arguments.percent,
        fold=arguments.fold,
        corruption=study.split.corruption,
    )
    store = Store.open(dataset_folder(arguments.results, study.dataset.label), "train")
    split = splits.read_split(splits.split_path(arguments.results, study.dataset.label, choice))
    splits.check_split(split, store, choice)
    whole = store.coco_dict()
    name = f"instances_train2017.{split.fold}@{split.percent:g}"
    for stem, labelled in ((name, True), (f"{name}-unlabeled", False)):
        part = _part(whole, split, labelled)
        path = arguments.out / f"{stem}.json"
        write_text(path, json.dumps(part))
        print(f"{path}: {len(part['images'])} images, {len(part['annotations'])} annotations")


def _part(whole: dict[str, Any], split: splits.Split, labelled: bool) -> dict[str, Any]:
    """Give the images of one side in the order of the source file, with the keys that Soft Teacher writes."""
    chosen = set(split.ids)
    images = [image for image in whole["images"] if (image["id"] in chosen) == labelled]
    notes = [note for note in whole["annotations"] if (note["image_id"] in chosen) == labelled]
    if labelled and split.corruption:
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        notes = [spoilt for note in notes for spoilt in corruptions.apply(split, [note], sizes[note["image_id"]])]
    return {
        "images": images,
        "annotations": notes,
        "licenses": whole.get("licenses", []),
        "categories": whole["categories"],
        "info": whole.get("info", {}),
    }
