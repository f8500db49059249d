"""Measure a COCO results file against a COCO annotation file, and print every number.

It needs no study and no workflow. The results are a list of records with image_id, category_id, score and a
segmentation, an RLE or polygons; a missing bbox is computed from the mask. Of boxes alone box AP is measured alone.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.cli import context
from pais_bench.evaluation import evaluate
from pais_bench.evaluation.results_file import named_in_errors, read_ground_truth, read_records


def add_arguments(parser: ArgumentParser) -> None:
    """Add both files, the metrics, and the JSON to write."""
    parser.add_argument("ground_truth", metavar="GROUND_TRUTH", type=Path, help="COCO annotation file")
    parser.add_argument("predictions", metavar="RESULTS", type=Path, help="COCO results file")
    known = f"of {', '.join(plugins.names('metrics'))} (default: coco)"
    parser.add_argument("--metrics", nargs="+", default=["coco"], metavar="METRIC", help=known)
    parser.add_argument("--root", type=Path, help="folder of the raw data with Cityscapes' official ground truth")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers, per class too, as JSON")


def run(arguments: Namespace) -> None:
    """Print a line per protocol, each under its name, in percent; raise BenchError for a file that does not fit."""
    gt, records = read_ground_truth(arguments.ground_truth, context.print_progress), read_records(arguments.predictions)
    with named_in_errors(arguments.predictions):
        metrics = evaluate.evaluate(arguments.metrics, gt, records, arguments.root)
    if arguments.out:
        context.write_json(arguments.out, {"images": len(gt["images"]), **metrics})
    boxes = "" if "segm" in metrics or "coco" not in arguments.metrics else " of boxes alone: mask AP is not measured"
    print(f"{len(gt['images'])} images, {len(gt['annotations'])} annotations, {len(records)} results{boxes}")
    for key, name in evaluate.protocols(tuple(arguments.metrics)).items():
        if key in metrics:
            print(f"{name} (%)\n  {_line(metrics[key])}")


def _line(numbers: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {evaluate.in_percent(value, 2)}" for name, value in numbers.items())
