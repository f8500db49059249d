"""Convert the segmentations that YOLO predicted to a COCO results file, which `evaluate-file` and studies read."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from pais_bench.cli import context
from pais_bench.converters.yolo_results import YoloResults, read_names_by_number
from pais_bench.evaluation.results_file import read_ground_truth
from pais_bench.whole_file import open_whole


def add_arguments(parser: ArgumentParser) -> None:
    """Add the folder of text files, the ground truth, the names of the classes, and the file to write."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="holds a text file for each photo, with confidences"
    )
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="FILE", help="COCO file of the same photos")
    text = "the network's data.yaml, or a text file with a class name a line"
    parser.add_argument("--names", type=Path, required=True, metavar="FILE", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="COCO results file")


def run(arguments: Namespace) -> None:
    """Write the file record by record; raise BenchError for predictions that do not fit the ground truth."""
    gt = read_ground_truth(arguments.ground_truth, context.print_progress)
    results = YoloResults(arguments.folder, read_names_by_number(arguments.names), gt)
    out: Path = arguments.out
    count = 0
    with open_whole(out) as file:
        for record in results.records():
            file.write(f"{',' if count else '['}\n{json.dumps(record)}")
            count += 1
        file.write("\n]\n" if count else "[]\n")
    print(f"{out}: {count} results; {results.without_file} of {len(gt['images'])} images have no file of predictions")
    if results.left_out:
        print(f"left out: {results.left_out} lines of less than three points")
