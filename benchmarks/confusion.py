"""Measure which part of a class a run confuses, shape or texture, from its predictions on the synthetic data.

python benchmarks/confusion.py results/datasets/shapes results/runs/shapes/.../predictions.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from pais_bench.annotations.store import Store
from pais_bench.evaluation.error_cache import ErrorAnalysis


def main(dataset: Path, predictions: Path) -> None:
    """Print how often the best-scored detection of an object, of mask IoU >= 0.5, has its class, shape, texture."""
    store = Store.open(dataset, "val")
    names = {number: name.split() for number, name in store.categories}
    confusion = ErrorAnalysis(store).content(predictions)["confusion"]
    pairs = [(names[true], names[detected], count) for true, detected, count in confusion if detected is not None]
    total = sum(count for *_, count in pairs)
    same = [
        sum(count for true, detected, count in pairs if true[part] == detected[part]) / total
        for part in (slice(None), 1, 0)
    ]
    print(f"{total} objects detected, class {same[0]:.2f}, shape {same[1]:.2f}, texture {same[2]:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
