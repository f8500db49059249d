"""How long does a paired bootstrap of two prediction files take? On a data set as large as val2017.

python benchmarks/bootstrap.py COCOAPI_EVAL_FOLDER [COPIES]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from evaluate import replicate

from pais_bench import statistics
from pais_bench.metrics import coco


def main(folder: Path, copies: int) -> None:
    """Compare the example with itself less a tenth of its detections; print CPU seconds and the difference."""
    truth, records = replicate(folder, copies)
    draw = random.Random(0)
    began = time.process_time()
    first, second = (coco.match(truth, one) for one in (records, [r for r in records if draw.random() < 0.9]))
    matched = time.process_time()
    counts = statistics.draw(len(truth["images"]))
    found = statistics.difference(*([coco.bootstrap_ap(one, counts)] for one in (second, first)))
    done = time.process_time()
    print(f"{len(truth['images'])} images, two files: matching {matched - began:.1f} s, ", end="")
    print(f"{statistics.DRAWS} draws {done - matched:.1f} s")
    print(f"difference {100 * found.value:.2f}, 95 % [{100 * found.low:.2f}, {100 * found.high:.2f}], p {found.p:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
