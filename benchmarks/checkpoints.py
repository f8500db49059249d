"""Measure the share of a training that is spent on writing checkpoints, on the disk of --results.

python benchmarks/checkpoints.py [--results FOLDER] [--steps 180]

First the demo's supervised training: the seconds spent on saving, relative to all, at the demo's interval. Then the
networks and optimisers of the study coco, R50-FPN, after one step on small images: the size of a checkpoint, the
seconds to save it (median of five), and the step time below which the default interval costs more than 2 %.
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

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.study.run import Run, Training
from pais_bench.training.step import train_step
from pais_bench.training.trainer import Trainer
from pais_bench.types import Batch

EVERY = Training().checkpoint_every
MAX_SHARE = 0.02


def main() -> None:
    """Train the demo, save COCO's networks, and print the cost of the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="folder to write in (default: that of temporary files)")
    parser.add_argument("--steps", type=int, default=180, help="steps of the demo to train")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    demo, coco = load_study("demo"), load_study("coco")
    with tempfile.TemporaryDirectory(dir=arguments.results) as temporary:
        folder = Path(temporary)
        plugin = plugins.load("datasets", "shapes")
        plugin.Dataset(plugin.Options(**demo.dataset.options), None).prepare(folder, demo.dataset.label)
        stores = {subset: Store.open(folder, subset) for subset in ("train", "val")}
        small = demo.run(10, 1, "mask_rcnn", "supervised")
        training = small.training.model_copy(update={"steps": arguments.steps, "milestones": (arguments.steps,)})
        train(build_trainer(small.model_copy(update={"training": training}), stores, folder / "demo"))
        for network in coco.networks:
            run = coco.run(10, 1, network, "supervised")
            options = {key: value for key, value in run.network.options.items() if key != "pretrained_backbone"}
            run = small.model_copy(
                update={
                    "network": run.network.model_copy(update={"options": options}),
                    "training": run.training.model_copy(update={"precision": "32-true", "labelled_batch_size": 1}),
                }
            )
            save(network, build_trainer(run, stores, folder / network))


def build_trainer(run: Run, stores: dict[str, Store], folder: Path) -> Trainer:
    """Build a trainer in a folder of its own."""
    folder.mkdir()
    fabric = Fabric(accelerator="cpu", devices=1, precision=run.training.precision)
    fabric.launch()
    return Trainer(run, stores, draw_split(stores["train"], run.dataset, run.split), folder, fabric)


def timed(function: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """Return a function that also appends the seconds of each call."""

    def call() -> None:
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)

    return call


def train(trainer: Trainer) -> None:
    """Train to the end, and print the share of saving, with evaluations and without."""
    saving: list[float] = []
    trainer._save = timed(trainer._save, saving)  # type: ignore[method-assign]
    begin = time.perf_counter()
    trainer.fit()
    wall, size = time.perf_counter() - begin, trainer.checkpoint.stat().st_size / 1e6
    every = trainer.run.training.checkpoint_every
    print(f"demo: {trainer.step} steps in {wall:.1f} s, {trainer.seconds:.1f} s of them in steps")
    print(
        f"demo: {len(saving)} checkpoints of {size:.1f} MB, one every {every} steps, took {sum(saving):.3f} s: "
        f"{sum(saving) / wall:.2%} of all, {sum(saving) / trainer.seconds:.2%} of the steps"
    )


def save(name: str, trainer: Trainer) -> None:
    """Do one step, so that the optimiser has its state, and print size and time of a checkpoint."""
    batch = Batch(0, trainer.dataset[0].labelled, [])
    train_step(trainer.run, trainer.method, trainer.models, batch, trainer.fabric)
    seconds: list[float] = []
    for _ in range(5):
        timed(trainer._save, seconds)()
    size, median = trainer.checkpoint.stat().st_size / 1e6, statistics.median(seconds)
    least = median * (1 - MAX_SHARE) / (MAX_SHARE * EVERY)
    print(
        f"coco {name}: {size:.0f} MB in {median:.2f} s (median of {len(seconds)}, {max(seconds):.2f} s at most); every "
        f"{EVERY} steps that is under {MAX_SHARE:.0%} of training where a step takes more than {1000 * least:.0f} ms"
    )


if __name__ == "__main__":
    main()
