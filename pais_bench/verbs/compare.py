"""Compare two COCO results files on the same images, and print whether their difference in AP is more than luck.

A paired bootstrap over the images gives the interval and p; docs/statistics.md says what they mean.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.result_files import of_file, read_records, read_truth
from pais_bench.types import BenchError

KINDS = {"segm": "mask AP", "bbox": "box AP"}


def add_arguments(parser: ArgumentParser) -> None:
    """Name the truth, both results files, and how the images are drawn."""
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="COCO annotation file")
    parser.add_argument("first", metavar="FIRST", type=Path, help="COCO results file")
    parser.add_argument("second", metavar="SECOND", type=Path, help="COCO results file that is to be better")
    parser.add_argument("--kind", choices=list(KINDS), default="segm", help="compare mask or box AP (default: segm)")
    parser.add_argument("--draws", type=int, default=1000, help="draws of the images (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")


def run(arguments: Namespace) -> None:
    """Print AP of both, the difference with its interval and p, and the difference that such images can show."""
    from pais_bench import statistics  # here, as every verb is loaded at every start

    if arguments.draws < 100 or arguments.seed < 0:
        raise BenchError("--draws, --seed: an interval of 95 % wants at least 100 draws, and a seed is 0 or more")
    truth = read_truth(arguments.truth)
    counts = statistics.draw(len(truth["images"]), arguments.draws, arguments.seed)
    first, second = (_drawn(truth, path, arguments.kind, counts) for path in (arguments.first, arguments.second))
    found = statistics.difference([first], [second])
    name = KINDS[arguments.kind]
    for path, ap in ((arguments.first, first), (arguments.second, second)):
        print(f"{name} {ap[0]:6.2f} %  {path}")
    print(
        f"difference {found.value:+.2f} points, 95 % interval [{found.low:+.2f}, {found.high:+.2f}], p = {found.p:.3f}"
    )
    print(
        f"detectable {statistics.detectable_on_images(found.sd):.2f} points: the true difference that these "
        "images show with power 0.8"
    )
    print(
        f"Paired bootstrap over {len(truth['images'])} images, {arguments.draws} draws, seed {arguments.seed}; it "
        "speaks of other images, not of other trainings."
    )


def _drawn(truth: dict[str, Any], path: Path, kind: str, counts: Any) -> Any:
    """Give AP in percent f64[1+B], on the images and on the draws of them."""
    coco, records = plugins.load("metrics", "coco"), read_records(path)
    with of_file(path):
        coco.check(truth, records)
    return 100 * coco.bootstrap_ap(coco.match(truth, records, kind=kind), counts)
