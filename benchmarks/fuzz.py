"""Does any broken annotation file make prepare fail otherwise than in words? Try many, as tests/test_fuzz.py does.

python benchmarks/fuzz.py [files] [seed]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from mutations import Trial, mutated


def main(count: int = 100_000, seed: int = 0) -> int:
    """Print how many files were prepared, repaired and refused, and the slowest; keep what broke a promise."""
    found: Counter[str] = Counter()
    slowest, start = (0.0, 0), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        for number in tqdm(range(seed, seed + count), mininterval=2):
            content, begun = mutated(random.Random(number)), time.perf_counter()
            try:
                found[trial.run(content, repair=number % 2 == 1)] += 1
            except Exception as error:  # whatever it is, it is what we look for
                found["broken"] += 1
                print(f"\nseed {number}: {type(error).__name__}: {error}", file=sys.stderr)
            slowest = max(slowest, (time.perf_counter() - begun, number))
    print(f"{count} files in {time.perf_counter() - start:.0f} s: {dict(found)}")
    print(f"slowest: {1000 * slowest[0]:.0f} ms, seed {slowest[1]}")
    return 1 if found["broken"] else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
