"""Write a run's predictions as panoptic maps in COCO's panoptic format: a JSON file, and a PNG for each image.

The maps are those that the metric `panoptic` measures; other tools for that format read them.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import defaultdict
from pathlib import Path
from typing import Any

from pais_bench.annotations.panoptic import is_thing, write_map
from pais_bench.cli import context
from pais_bench.cli.prepared import require_trained
from pais_bench.evaluation.coco.check import checked_records
from pais_bench.evaluation.panoptic_merge import merge_records
from pais_bench.evaluation.results_file import as_records, named_in_errors
from pais_bench.runs.files import predictions_file
from pais_bench.study.run import suffix


def add_arguments(parser: ArgumentParser) -> None:
    """Add run, checkpoint, and the folder of the files."""
    context.add_run(parser)
    context.add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of panoptic_val.json and panoptic_val/")


def run(arguments: Namespace) -> None:
    """Write the PNGs and then the file; raise BenchError where the run is not trained or not predicted."""
    study = context.read_study(arguments)
    run, checkpoint = context.find_run(study, arguments), context.find_checkpoint(study, arguments)
    gt = context.open_store(study, arguments.results, "val").coco_dict()
    require_trained(run, arguments.results)
    predictions = arguments.results / run.folder / predictions_file(suffix(checkpoint))
    content = as_records(predictions, context.read_json(predictions))
    with named_in_errors(predictions):
        records = checked_records(gt, content)
    by_image: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_image[record["image_id"]].append(record)
    things = {category["id"] for category in gt["categories"] if is_thing(category)}
    path, maps = arguments.out / "panoptic_val.json", arguments.out / "panoptic_val"
    maps.mkdir(parents=True, exist_ok=True)
    annotations = []
    for image in gt["images"]:
        merged = merge_records(by_image[image["id"]], (image["height"], image["width"]), things)
        name = f"{image['id']}.png"
        write_map(maps / name, merged.ids)
        annotations.append({"image_id": image["id"], "file_name": name, "segments_info": merged.segments})
    context.write_json(path, {"images": gt["images"], "annotations": annotations, "categories": gt["categories"]})
    segments = sum(len(annotation["segments_info"]) for annotation in annotations)
    print(f"{path}: {segments} segments on {len(annotations)} images")
