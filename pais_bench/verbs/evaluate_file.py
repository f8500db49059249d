"""Measure a COCO results file against a COCO annotation file, and print every number.

No study and no workflow is needed. The results are a list of records with image_id, category_id, score and a
segmentation in compressed RLE; a bbox is taken from the mask where it is absent.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pais_bench import evaluation, plugins
from pais_bench.result_files import of_file, read_records, read_truth
from pais_bench.store import write_text


def add_arguments(parser: ArgumentParser) -> None:
    """Name both files, the metrics, and where the numbers go as JSON."""
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="COCO annotation file")
    parser.add_argument("predictions", metavar="RESULTS", type=Path, help="COCO results file")
    offered = ", ".join(plugins.names("metrics"))
    parser.add_argument(
        "--metrics", nargs="+", default=["coco"], metavar="METRIC", help=f"of {offered} (default: coco)"
    )
    parser.add_argument("--root", type=Path, help="folder of the raw data, where Cityscapes' official truth lies")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers, per class too, as JSON")


def run(arguments: Namespace) -> None:
    """Print a line per protocol, each under its name, in percent; raise BenchError for a file that does not fit."""
    truth, records = read_truth(arguments.truth), read_records(arguments.predictions)
    with of_file(arguments.predictions):
        found = evaluation.measure(arguments.metrics, truth, records, arguments.root)
    if arguments.out:
        write_text(arguments.out, json.dumps({"images": len(truth["images"]), **found}) + "\n")
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} annotations, {len(records)} results")
    for key, name in evaluation.protocols().items():
        if key in found:
            print(f"{name} (%)\n  {_line(found[key])}")


def _line(numbers: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {'–' if value is None else f'{100 * value:.2f}'}" for name, value in numbers.items())
