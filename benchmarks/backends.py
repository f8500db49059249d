"""Time a supervised step through an adapter beside the framework's own step on the same batch.

python benchmarks/backends.py BACKEND/NETWORK [--pairs 20] [--size 256]

Run it in the environment of the backend: `$(python3 envs/build.py mmdet) benchmarks/backends.py mmdet/mask_rcnn`. Both
networks have the same weights, and their steps alternate, so that a busy machine slows both; medians are printed. The
adapter's step also trains its mask-IoU branch, and brings images and masks into the framework's form. The framework's
own step begins with its preprocessing; its images and masks are in that form before, as a loader leaves them.
`--options small` is the network of the study backends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pais_bench import plugins
from pais_bench.layers.normalizers import batch_normalizer
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
    branch = {"mask_iou_channels": 32} if given.options == "small" and "mask_rcnn" in given.network else {}
    options = plugin.Options(backbone=given.options, **branch)
    ours = plugin.Backend(CLASSES, options)
    images, targets = batch(given.size)
    theirs = stock(plugin, given.network, options, ours, images, targets)
    compare(
        {
            "framework's step": step(theirs),
            "adapter's step": step(lambda: sum(ours.loss(images, targets, batch_normalizer).values())),
        },
        given.pairs,
    )


def batch(size: int) -> tuple[list[Tensor], list[Targets]]:
    """Draw random images with five rectangles each."""
    images, targets = [], []
    for _ in range(IMAGES):
        corner = torch.rand(5, 2) * size / 2
        boxes = torch.cat((corner, corner + size / 8 + torch.rand(5, 2) * size / 4), 1).round()
        masks = torch.zeros(5, size, size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        ones = torch.ones(5)
        images.append(torch.rand(3, size, size))
        targets.append(Targets.unweighted(Instances(boxes, torch.randint(CLASSES, (5,)), masks, ones, ones)))
    return images, targets


def stock(plugin: Any, name: str, options: Any, backend: Any, images: Any, targets: Any) -> Callable[[], Tensor]:
    """Return a function that computes the framework's own loss, on a network of its own classes with our weights."""
    weights = {key: value for key, value in backend.model.state_dict().items() if "mask_iou" not in key}
    if name.startswith("detectron2/"):
        return stock_detectron2(plugin, options, backend, weights, images, targets)
    return stock_mmdet(plugin, options, weights, images, targets)


def stock_detectron2(plugin: Any, options: Any, backend: Any, weights: Any, images: Any, targets: Any) -> Any:
    """Return a function that computes detectron2's own loss."""
    from detectron2.modeling import build_model
    from detectron2.utils.events import EventStorage

    from pais_bench.backends.detectron2._config import stock_config

    model = build_model(stock_config(CLASSES, options)).train()
    model.load_state_dict(weights)
    inputs = [
        image | {"instances": plugin.detectron_instances(target)}
        for image, target in zip(backend.inputs(images, (0, 0)), targets, strict=True)
    ]

    def loss() -> Any:
        with EventStorage():
            return sum(model(inputs).values())

    return loss


def stock_mmdet(plugin: Any, options: Any, weights: Any, images: Any, targets: Any) -> Any:
    """Return a function that computes mmdet's own loss."""
    from pais_bench.backends.mmdet._config import build_pretrained
    from pais_bench.backends.mmdet._samples import to_batch

    model = build_pretrained(options, plugin.SMALL, plugin.stock_settings(CLASSES))
    model.load_state_dict(weights)
    _, samples = to_batch(model, images, targets)
    inputs = [255 * image.flip(0) for image in images]

    def loss() -> Tensor:
        batch = model.data_preprocessor({"inputs": inputs, "data_samples": samples}, training=True)
        return total(model.loss(batch["inputs"], batch["data_samples"]))

    return loss


def total(losses: dict[str, Any]) -> Tensor:
    """Return the sum of mmdet's losses, some of which are lists by level."""
    terms = [loss for name, loss in losses.items() if "loss" in name]
    return torch.stack([loss.sum() for term in terms for loss in (term if isinstance(term, list) else [term])]).sum()


def step(loss: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that does one forward and backward pass and returns its CPU seconds."""

    def timed() -> float:
        torch.manual_seed(1)
        begin = time.process_time()
        loss().backward()
        return time.process_time() - begin

    return timed


def compare(steps: dict[str, Callable[[], float]], pairs: int) -> None:
    """Alternate two steps and print their medians and the ratio of the second to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(pairs + 1):
        for name, timed in steps.items():
            duration = timed()
            if pair:  # the first pair warms up
                seconds[name].append(duration)
    (first, a), (second, b) = ((name, statistics.median(durations)) for name, durations in seconds.items())
    print(f"{first:20} {1000 * a:8.1f} ms")
    print(f"{second:20} {1000 * b:8.1f} ms = {b / a:.3f} of it, {pairs} pairs")


if __name__ == "__main__":
    main()
