"""Count how many mutated annotation files `prepare` refuses, repairs and accepts, as tests/test_fuzz.py does.

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

from mutations import Trial, mutate


def main(count: int = 100_000, seed: int = 0) -> int:
    """Print the number of files per outcome, the slowest file, and every seed whose outcome is an error."""
    outcomes: Counter[str] = Counter()
    slowest, start = (0.0, 0), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        for number in tqdm(range(seed, seed + count), mininterval=2):
            content, begin = mutate(random.Random(number)), time.perf_counter()
            try:
                outcomes[trial.run(content, repair=number % 2 == 1)] += 1
            except Exception as error:  # any other error is a finding
                outcomes["error"] += 1
                print(f"\nseed {number}: {type(error).__name__}: {error}", file=sys.stderr)
            slowest = max(slowest, (time.perf_counter() - begin, number))
    print(f"{count} files in {time.perf_counter() - start:.0f} s: {dict(outcomes)}")
    print(f"slowest: {1000 * slowest[0]:.0f} ms, seed {slowest[1]}")
    return 1 if outcomes["error"] else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
