"""What does an adapter cost over its framework? A supervised step through it beside the framework's own, same batch.

python benchmarks/backends.py BACKEND/NETWORK [--pairs 20] [--size 256]

Run it in the environment of the backend: `$(python3 envs/build.py mmdet) benchmarks/backends.py mmdet/mask_rcnn`. Both
networks have the same weights, and their steps alternate, so that a busy machine slows both; medians are printed. The
adapter's step also trains its mask-IoU branch, and gives the framework the images and masks; the framework's own step
begins with its preprocessing, its images and masks are what a loader would have given before. `--options small` is the
network of the study backends.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from pais_bench import plugins
from pais_bench.types import Instances, Targets

CLASSES, IMAGES = 8, 2


def main() -> None:
    """Time pairs of steps and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=[name for name in plugins.names("backends") if "torchvision" not in name])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--size", type=int, default=256, help="side of an image, px (default: 256)")
    parser.add_argument("--options", choices=["small", "resnet50"], default="resnet50", help="the network's backbone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plugin = plugins.load("backends", given.network)
    branch = {"quality_channels": 32} if given.options == "small" and "mask_rcnn" in given.network else {}
    options = plugin.Options(backbone=given.options, **branch)
    ours = plugin.Backend(CLASSES, options)
    images, targets = batch(given.size)
    theirs = stock(plugin, given.network, copy.deepcopy(ours), images, targets)
    compare(
        {"framework's step": step(theirs), "adapter's step": step(lambda: sum(ours.loss(images, targets).values()))},
        given.pairs,
    )


def batch(size: int) -> tuple[list[torch.Tensor], list[Targets]]:
    """Draw images with five rectangles each."""
    images, targets = [], []
    for _ in range(IMAGES):
        corner = torch.rand(5, 2) * size / 2
        boxes = torch.cat((corner, corner + size / 8 + torch.rand(5, 2) * size / 4), 1).round()
        masks = torch.zeros(5, size, size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        one = torch.ones(5)
        images.append(torch.rand(3, size, size))
        targets.append(Targets.of_truth(Instances(boxes, torch.randint(CLASSES, (5,)), masks, one, one)))
    return images, targets


def stock(plugin: Any, name: str, backend: Any, images: Any, targets: Any) -> Callable[[], Any]:
    """Give a function that makes the framework's own loss: mixins and layout are taken off, the inputs are kept."""
    backend.to(memory_format=torch.contiguous_format)
    for module in backend.modules():
        if hasattr(module, "use_torchvision"):
            module.use_torchvision = False
        for owner in (module, *(value for value in vars(module).values() if hasattr(value, "__dict__"))):
            mixin, *rest = type(owner).__bases__
            if rest and mixin.__module__.startswith("pais_bench.backends"):
                owner.__class__ = rest[0]
    if name.startswith("detectron2/"):
        from detectron2.utils.events import EventStorage

        loaded = [
            {"image": backend._loaded(i), "instances": plugin._truth(t)} for i, t in zip(images, targets, strict=True)
        ]

        def loss() -> Any:
            with EventStorage():
                return sum(backend.model(loaded).values())

        return loss
    from pais_bench.backends.mmdet._networks import inputs

    if hasattr(backend.model, "panoptic_head"):
        backend.model.panoptic_head.cls_embed.__class__ = torch.nn.Linear
    _, samples = inputs(backend.model, images, targets)
    loaded = {"inputs": [255 * image.flip(0) for image in images], "data_samples": samples}

    def mmdet_loss() -> Any:
        ready = backend.model.data_preprocessor(dict(loaded), training=True)
        return total(backend.model.train().loss(ready["inputs"], ready["data_samples"]))

    return mmdet_loss


def total(losses: dict[str, Any]) -> Any:
    """Add up mmdet's losses, some of which are lists by level."""
    found = [
        one for name, loss in losses.items() if "loss" in name for one in (loss if isinstance(loss, list) else [loss])
    ]
    return torch.stack([one.sum() for one in found]).sum()


def step(loss: Callable[[], Any]) -> Callable[[], float]:
    """Give a function that does one forward and backward pass and tells its CPU seconds."""

    def timed() -> float:
        torch.manual_seed(1)
        begun = time.process_time()
        loss().backward()
        return time.process_time() - begun

    return timed


def compare(steps: dict[str, Callable[[], float]], pairs: int) -> None:
    """Alternate two steps and print their medians and the ratio of the second to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(pairs + 1):
        for name, one in steps.items():
            took = one()
            if number:  # the first pair warms up
                seconds[name].append(took)
    (first, a), (second, b) = ((name, statistics.median(found)) for name, found in seconds.items())
    print(f"{first:20} {1000 * a:8.1f} ms")
    print(f"{second:20} {1000 * b:8.1f} ms = {b / a:.3f} of it, {pairs} pairs")


if __name__ == "__main__":
    main()
