"""Measure the time of a paired bootstrap of two prediction files on a dataset as large as val2017.

python benchmarks/bootstrap.py COCOAPI_EVAL_FOLDER [COPIES]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from evaluate import replicate

from pais_bench.evaluation import significance
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import match


def main(folder: Path, copies: int) -> None:
    """Compare the example with nine tenths of its detections; print CPU seconds and the difference."""
    ground_truth, records = replicate(folder, copies)
    rng = random.Random(0)
    fewer = [record for record in records if rng.random() < 0.9]
    start = time.process_time()
    first, second = match(ground_truth, fewer), match(ground_truth, records)
    matched = time.process_time()
    counts = significance.bootstrap_counts(len(ground_truth["images"]))
    gain = significance.difference([bootstrap_ap(first, counts)], [bootstrap_ap(second, counts)])
    end = time.process_time()
    print(f"{len(ground_truth['images'])} images, two files: matching {matched - start:.1f} s, ", end="")
    print(f"{significance.SAMPLES} samples {end - matched:.1f} s")
    print(f"difference {100 * gain.value:.2f}, 95 % [{100 * gain.low:.2f}, {100 * gain.high:.2f}], p {gain.p:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
