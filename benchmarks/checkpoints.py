"""What share of a training goes into writing checkpoints? Measured where they are written, on the disk of --results.

python benchmarks/checkpoints.py [--results FOLDER] [--steps 180]

First the demo's supervised training for real: the seconds inside of saving, by those of all, at the demo's interval.
Then the networks and optimisers of the study coco, R50-FPN, after one step on small images: the size of a checkpoint,
the seconds that one takes (median of five), and how short a step would have to be for the default interval to cost 2 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from pais_bench import engine, plugins
from pais_bench.config import Run, Training
from pais_bench.splits import draw_split
from pais_bench.store import Store
from pais_bench.study_file import load_study

EVERY = Training().checkpoint_every
SHARE = 0.02


def main() -> None:
    """Train the demo and save COCO's networks, and print what that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="where to write (default: the folder of temporary files)")
    parser.add_argument("--steps", type=int, default=180, help="steps of the demo to train")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    demo, coco = load_study("demo"), load_study("coco")
    with tempfile.TemporaryDirectory(dir=given.results) as place:
        folder = Path(place)
        plugin = plugins.load("datasets", "shapes")
        plugin.Dataset(plugin.Options(**demo.dataset.options), None).prepare(folder, demo.dataset.label)
        stores = {part: Store.open(folder, part) for part in ("train", "val")}
        small = demo.run(10, 1, "mask_rcnn", "supervised")
        training = small.training.model_copy(update={"steps": given.steps, "milestones": (given.steps,)})
        train(trainer(small.model_copy(update={"training": training}), stores, folder / "demo"))
        for network in coco.networks:
            run = coco.run(10, 1, network, "supervised")
            options = {key: value for key, value in run.network.options.items() if key != "weights"}
            run = small.model_copy(
                update={
                    "network": run.network.model_copy(update={"options": options}),
                    "training": run.training.model_copy(update={"precision": "32-true", "labelled_batch": 1}),
                }
            )
            save(network, trainer(run, stores, folder / network))


def trainer(run: Run, stores: dict[str, Store], folder: Path) -> engine.Trainer:
    """Build a training in a folder of its own."""
    folder.mkdir()
    fabric = Fabric(accelerator="cpu", devices=1, precision=run.training.precision)
    fabric.launch()
    return engine.Trainer(run, stores, draw_split(stores["train"], run.dataset, run.split), folder, fabric)


def timed(function: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """Have a function note how long each call takes."""

    def call() -> None:
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)

    return call


def train(training: engine.Trainer) -> None:
    """Train to the end, and print the share of saving, with evaluations and without."""
    saving: list[float] = []
    training._save = timed(training._save, saving)  # type: ignore[method-assign]
    begun = time.perf_counter()
    training.fit()
    wall, size = time.perf_counter() - begun, training.checkpoint.stat().st_size / 1e6
    every = training.run.training.checkpoint_every
    print(f"demo: {training.step} steps in {wall:.1f} s, {training.seconds:.1f} s of them in steps")
    print(
        f"demo: {len(saving)} checkpoints of {size:.1f} MB, one every {every} steps, took {sum(saving):.3f} s: "
        f"{sum(saving) / wall:.2%} of all, {sum(saving) / training.seconds:.2%} of the steps"
    )


def save(name: str, training: engine.Trainer) -> None:
    """Do one step, so that the optimiser has its state, and print what a checkpoint takes then."""
    training._train_step(training.stream[0])
    seconds: list[float] = []
    for _ in range(5):
        timed(training._save, seconds)()
    size, median = training.checkpoint.stat().st_size / 1e6, statistics.median(seconds)
    least = median * (1 - SHARE) / (SHARE * EVERY)
    print(
        f"coco {name}: {size:.0f} MB in {median:.2f} s (median of {len(seconds)}, {max(seconds):.2f} s at most); every "
        f"{EVERY} steps that is under {SHARE:.0%} of training where a step takes more than {1000 * least:.0f} ms"
    )


if __name__ == "__main__":
    main()
