"""Predict any images below a folder with a trained run, as a COCO results file or as labels for annotation tools.

Image ids are 1, 2, ... in the order of the sorted paths below the folder. An image that cannot be read is named and
left out, the others are predicted, and the exit code is 2. The file gets its name when all of it is written.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pais_bench import provenance
from pais_bench.annotations.panoptic import is_thing
from pais_bench.annotations.sources import read_classes, read_content
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.evaluation.results_file import read_ground_truth
from pais_bench.images.files import image_files, require_data_folder
from pais_bench.images.pixels import read_pixels
from pais_bench.runs.files import RUN
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.types import Backend
from pais_bench.whole_file import open_whole

if TYPE_CHECKING:
    import torch

    from pais_bench.data.folder import FolderImage

LABEL_SCORE = 0.5
"""Least class score of labels, and of what overlays show, unless --score is given."""
INTERVAL = 10.0
"""Seconds between two lines of progress."""
NAME_CLASSES = "name the COCO annotation file of its training set with --classes"


def add_arguments(parser: ArgumentParser) -> None:
    """Add run and folder, what is written, the filters, and the settings of torch."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a trained run, which holds run.json")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the images, sub-folders included")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the COCO file to write")
    labels = "write a COCO dataset file with images, polygons and classes, as annotation tools read it"
    parser.add_argument("--as-labels", action="store_true", help=labels)
    parser.add_argument("--rle", action="store_true", help="of --as-labels: masks as RLE, which may have holes")
    parser.add_argument("--overlays", metavar="DIR", type=Path, help="paint the instances over the images, as JPEGs")
    score = f"least class score 0..1 (default: 0; of --as-labels and --overlays {LABEL_SCORE})"
    parser.add_argument("--score", type=float, help=score)
    parser.add_argument("--mask-iou", type=float, default=0.0, help="least predicted mask IoU 0..1 (default: 0)")
    classes = "COCO annotation file of the training set, where the run's folder does not tell its classes"
    parser.add_argument("--classes", metavar="FILE", type=Path, help=classes)
    known = get_args(ModelCheckpoint)
    checkpoint = f"{', '.join(known)} (default: the first)"
    parser.add_argument("--checkpoint", metavar="NAME", choices=known, default=known[0], help=checkpoint)
    context.add_torch(parser)
    context.add_workers(parser)


def run(arguments: Namespace) -> None:
    """Write the file; raise BenchError where something is missing, or after the end where images are left out."""
    from pais_bench.training.predict_folder import keep_above, predict_folder

    provenance.require_versions(arguments.locked)
    names = _check_paths(arguments)
    run, categories = read_run(arguments.run, arguments.classes)
    classes = {category["id"]: category["name"] for category in categories}
    fabric = context.one_device(arguments, run)
    network = _load(run, categories, arguments, fabric.device)
    default = LABEL_SCORE if arguments.as_labels else 0.0
    keep = keep_above(default if arguments.score is None else arguments.score, arguments.mask_iou)
    workers = context.count_workers(arguments, fabric.device.type)
    predictions = predict_folder(network, run, arguments.folder, names, list(classes), keep, fabric.device, workers)
    faults: list[str] = []
    with fabric.autocast(), open_whole(arguments.out) as file:
        writer = _open_writer(file, categories, arguments)
        shown = time.monotonic()
        for done, (image, records) in enumerate(predictions, start=1):
            writer.write(image, records)
            if image.fault:
                faults.append(image.fault)
                context.print_progress(f"left out: {image.fault}")
            elif arguments.overlays:
                _write_overlay(image, records, classes, arguments)
            if time.monotonic() - shown > INTERVAL:
                shown = time.monotonic()
                context.print_progress(f"{done} of {len(names)} images")
        writer.close()
    context.print_progress(f"{arguments.out}: {writer.count} instances on {len(names) - len(faults)} images")
    if arguments.as_labels and writer.filled:
        filled = f"{writer.filled} of the masks have holes, which polygons fill; --rle keeps them"
        context.print_progress(f"{arguments.out}: {filled}")
    if faults:
        raise BenchError(f"{len(faults)} of {len(names)} images are not in {arguments.out}, the first: {faults[0]}")


def read_run(folder: Path, annotations: Path | None = None) -> tuple[Run, list[dict[str, Any]]]:
    """Return the run of a folder and its classes, categories of COCO in the order of the network's classes.

    The classes are those of an annotation file that is given, else of run.json, else of the prepared dataset in the
    results folder above. Raises BenchError for a folder without run.json, or where nothing tells the classes.
    """
    path = folder / RUN
    if not path.is_file():
        raise BenchError(f"{path}: missing; name the folder of a trained run, below results/runs/")
    record = context.read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("run"), dict):
        raise BenchError(f"{path}: not what `pais-bench train` writes; train the run again")
    run = parse(Run, record["run"], str(path))
    if annotations is not None:
        classes = read_ground_truth(annotations, context.print_progress)["categories"]
    else:
        classes = record.get("classes") or _prepared_classes(run, folder, record.get("data"))
    return run, sorted(classes, key=lambda category: category["id"])


def _prepared_classes(run: Run, folder: Path, content: str | None) -> list[dict[str, Any]]:
    """Return the classes of the dataset that a run was trained on, where it is prepared in a folder above."""
    for results in folder.resolve().parents:
        prepared = dataset_folder(results, run.dataset)
        classes = read_classes(prepared)
        if classes is not None:
            if content not in (None, read_content(prepared)):
                raise BenchError(f"{prepared}: not the data that {folder} was trained on; {NAME_CLASSES}")
            return classes
    raise BenchError(f"{folder}: neither run.json nor a prepared dataset above tells its classes; {NAME_CLASSES}")


def _check_paths(arguments: Namespace) -> list[str]:
    """Return the names of the images; raise BenchError for what would fail after the prediction."""
    folder, out, overlays = arguments.folder, arguments.out, arguments.overlays
    require_data_folder(folder, "images")
    if out.is_dir():
        raise BenchError(f"{out}: is a folder; let --out name a file")
    if overlays and overlays.resolve().is_relative_to(folder.resolve()):
        raise BenchError(f"--overlays {overlays}: lies in {folder}, whose images are predicted; name another folder")
    for key, value in (("score", arguments.score), ("mask-iou", arguments.mask_iou)):
        if value is not None and not 0 <= value <= 1:
            raise BenchError(f"--{key} {value:g}: not in 0..1; give a fraction")
    if arguments.rle and not arguments.as_labels:
        raise BenchError("--rle: is of --as-labels; leave it out, as a results file has RLE anyway")
    names = image_files(folder)
    if not names:
        raise BenchError(f"{folder}: holds no image; give the folder of the images")
    return names


def _load(run: Run, categories: list[dict[str, Any]], arguments: Namespace, device: torch.device) -> Backend:
    """Load the network; raise BenchError where its weights are for other classes."""
    from pais_bench.training.networks import load_trained

    try:
        isthing = [is_thing(category) for category in categories]
        return load_trained(run, isthing, arguments.run, arguments.checkpoint).to(device)
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        fault = f"its weights do not fit a network of {len(categories)} classes"
        raise BenchError(f"{arguments.run}: {fault}; {NAME_CLASSES}") from error


def _open_writer(file: Any, categories: list[dict[str, Any]], arguments: Namespace) -> Any:
    from pais_bench.training.predict_folder import LabelsFile, ResultsFile

    return LabelsFile(file, categories, arguments.rle) if arguments.as_labels else ResultsFile(file)


def _write_overlay(
    image: FolderImage, records: list[dict[str, Any]], classes: dict[int, str], arguments: Namespace
) -> None:
    """Paint the records of an image that are sure enough over it."""
    from pais_bench.training.overlay import write_overlay

    least = LABEL_SCORE if arguments.score is None else arguments.score
    pixels = read_pixels(arguments.folder / image.name)
    shown = [record for record in records if record["score"] >= least]
    write_overlay(arguments.overlays / f"{image.name}.jpg", pixels, shown, classes)
