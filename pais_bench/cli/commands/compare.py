"""Compare two COCO results files on the same images, and print whether their difference in AP is significant.

A paired bootstrap over the images gives the interval and p; docs/explanation/statistics.md says what they mean.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench.errors import BenchError
from pais_bench.evaluation.results_file import named_in_errors, read_ground_truth, read_records

KINDS = {"segm": "mask AP", "bbox": "box AP"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the ground truth, both results files, and the bootstrap settings."""
    parser.add_argument("ground_truth", metavar="GROUND_TRUTH", type=Path, help="COCO annotation file")
    parser.add_argument("first", metavar="FIRST", type=Path, help="COCO results file")
    parser.add_argument("second", metavar="SECOND", type=Path, help="COCO results file that is expected to be better")
    parser.add_argument("--kind", choices=list(KINDS), default="segm", help="compare mask or box AP (default: segm)")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples of the images (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")


def run(arguments: Namespace) -> None:
    """Print AP of both, the difference with its interval and p, and the difference that these images can detect."""
    # here, as --help loads every command
    from pais_bench.evaluation import significance
    from pais_bench.evaluation.coco.ground_truth import GroundTruth
    from pais_bench.evaluation.evaluate import in_percent

    if arguments.samples < 100 or arguments.seed < 0:
        raise BenchError("--samples, --seed: a 95 % interval needs at least 100 samples, and a seed is 0 or more")
    gt = read_ground_truth(arguments.ground_truth)
    counts = significance.bootstrap_counts(len(gt["images"]), arguments.samples, arguments.seed)
    indexed_gt = GroundTruth.of(gt)
    paths = (arguments.first, arguments.second)
    first, second = (_bootstrap(gt, indexed_gt, path, arguments.kind, counts) for path in paths)
    difference = significance.difference([first], [second])
    for path, ap in zip(paths, (first, second), strict=True):
        print(f"{KINDS[arguments.kind]} {in_percent(ap[0] / 100, 2):>6} %  {path}")
    if math.isnan(difference.value):
        print("difference –: AP is undefined, as these images have no object to find")
        return
    if len(gt["images"]) == 1:
        print(f"difference {difference.value:+.2f} points, without an interval: one image says nothing of others")
        return
    interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
    print(f"difference {difference.value:+.2f} points, 95 % interval {interval}, p = {difference.p:.3f}")
    detectable = significance.detectable_on_images(difference.sd)
    print(f"detectable {detectable:.2f} points: the true difference that these images show with power 0.8")
    print(
        f"Paired bootstrap over {len(gt['images'])} images, {arguments.samples} samples, seed {arguments.seed}; it "
        "covers the choice of images, not the variation between trainings."
    )


def _bootstrap(gt: dict[str, Any], indexed_gt: Any, path: Path, kind: str, counts: Any) -> Any:
    """Return AP in percent f64[1+B] of a results file, on all images and on each of B samples."""
    from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
    from pais_bench.evaluation.coco.check import checked_records, have_masks
    from pais_bench.evaluation.coco.matching import match

    records = read_records(path)
    with named_in_errors(path):
        records = checked_records(gt, records)
        if kind == "segm" and not have_masks(records):
            raise BenchError("boxes alone, so there is no mask AP to compare; give --kind bbox")
    return 100 * bootstrap_ap(match(indexed_gt, records, kind=kind), counts)
