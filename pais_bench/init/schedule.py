"""State the rules for the training loop: batches, steps and schedule, and what a run takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pais_bench.init.device import Device
from pais_bench.init.rules import Choice
from pais_bench.init.summary import DataSummary

EPOCHS = 40
"""Times that each labelled image of the largest percent is seen."""
CPU_STEPS, GPU_STEPS = (600, 1500), (2000, 180_000)
GB_PER_IMAGE = {"bf16-mixed": 1.2, "32-true": 2.4}
"""Memory of a training image of 800 x 1333 px: 1.0 on an H100 in bf16-mixed with 7 objects (docs/benchmarks/gpu.md),
and a fifth for more of them; twice of it in 32-true, assumed."""
STEP_SECONDS = {"small": 0.32, "mobilenet_v2": 0.57}
"""Seconds of a step on one core: 7 images of 96 px, and 4 of 160 px (docs/benchmarks/)."""
STEP_PIXELS = {"small": 7 * 96**2, "mobilenet_v2": 4 * 160**2}
H100_SECONDS, H100_LEAST, H100_PIXELS = 0.035, 0.025, 1000 * 1333
"""Seconds of an image of so many pixels on an H100 with resnet50, and the least that an image takes, as the host has to
launch its kernels (docs/benchmarks/gpu.md)."""
PAIS_OF_MASK_RCNN: dict[str, Any] = {
    "unlabelled_weight": 0.6,
    "score_threshold": 0.5,
    "mask_iou_threshold": 0.0,
    "alpha": 0.0,
    "class_scale": 1.0,
    "background": 1.0,
}
"""Options of `pais` that are nearest to its release's configuration of Mask R-CNN at 1 %."""


def batches(device: Device, name: str, sides: tuple[int, int]) -> Choice:
    """Return the batch sizes: of a CPU the least that learns, of a GPU what its memory holds, up to 4 + 8.

    sides are the shorter and the longer one of the largest training view.
    """
    if not device.gpu:
        labelled, unlabelled = (3, 4) if name == "small" else (2, 2)
        reason = "batch norm needs 3 images" if name == "small" else "few, for a CPU; batch norm is frozen"
    else:
        needed = GB_PER_IMAGE[precision(device)] * sides[0] * sides[1] / (800 * 1333)
        labelled = min(4, max(1, int(0.8 * device.memory / needed / 3)))
        unlabelled = 2 * labelled
        known = "as on an H100" if precision(device) == "bf16-mixed" else "assumed"
        reason = f"{needed:.1f} GB an image ({known}) of {device.memory:.0f} GB; --accumulate saves memory"
    return Choice({"labelled_batch_size": labelled, "unlabelled_batch_size": unlabelled}, reason)


def precision(device: Device) -> str:
    """Return the precision of a device: bfloat16 where it has it."""
    return "bf16-mixed" if device.gpu and device.capability >= (8, 0) else "32-true"


def steps(summary: DataSummary, device: Device, largest: float, batch: int) -> Choice:
    """Return the number of steps, EPOCHS of the labelled images at the largest percent within the device's bounds."""
    labelled = max(1, int(largest / 100 * summary.images["train"]))
    low, high = GPU_STEPS if device.gpu else CPU_STEPS
    count = min(max(round(EPOCHS * labelled / batch, -2), low), high)
    epochs = count * batch / labelled
    reason = f"{epochs:.0f} epochs of the {labelled} photos of {largest:g} %, within {low}..{high} for this device"
    return Choice({"steps": int(count)}, reason)


def optimiser(device: Device, name: str, pretrained: bool) -> Choice:
    """Return the optimiser: AdamW, with a lower rate for a pretrained backbone."""
    lr = 0.0001 if device.gpu else 0.0005 if pretrained else 0.0007
    values: dict[str, Any] = {
        "optimizer": "adamw",
        "lr": lr,
        "weight_decay": 0.05,
        "backbone_lr_factor": 0.25 if pretrained else 1.0,
        "grad_clip": 1.0 if device.gpu else 5.0,
    }
    if (half := precision(device)) != "32-true":
        values["precision"] = half
    return Choice(values, f"a {'pretrained' if pretrained else 'random'} backbone, {name}")


def milestones(count: int, device: Device, pretrained: bool, val_images: int) -> Choice:
    """Return what depends on the number of steps: decays at 80 and 93 %, a warm-up of 10 %, an EMA over 1 % of them.

    The burn-in is 40 % of a run from pretrained weights and 60 % of one from random ones, at most 2,000 steps.
    """
    values = {
        "warmup_steps": min(1000, count // 10),
        "milestones": [round(0.8 * count), round(0.93 * count)],
        "ema_decay": min(0.999, round(1 - 10 / count, 3)),
        "burn_in": min(2000, round((0.4 if pretrained else 0.6) * count)),
        "log_every": 50 if device.gpu else 20,
        "evaluate_every": max(1, count // 10),
        "evaluate_images": min(val_images, 500 if device.gpu else 50),
        "checkpoint_every": max(1, count // 10),
    }
    return Choice(
        values, "decays at 80 and 93 %, an EMA over 1 % of the steps; no teacher is good enough before burn_in"
    )


def expected_time(
    device: Device, name: str, pixels: float, training: Mapping[str, Any], splits: int, methods: int
) -> str:
    """Return in words how long a study takes, an order of magnitude; of a GPU, what it takes on an H100.

    pixels are those of a mean training view. All methods of a split begin with one burn-in, and one of them,
    supervised, has labelled images alone.
    """
    runs = f"{splits * methods} runs"
    if device.gpu:
        image = max(H100_LEAST, H100_SECONDS * pixels / H100_PIXELS)
    elif name in STEP_SECONDS:
        image = STEP_SECONDS[name] * pixels / STEP_PIXELS[name]
    else:
        return f"{runs}; `pais-bench plan` tells the hours once one run has begun"
    labelled = image * training["labelled_batch_size"]
    both = labelled + image * training["unlabelled_batch_size"]
    burn_in, steps = training["burn_in"], training["steps"]
    seconds = splits * (burn_in * labelled + (steps - burn_in) * (labelled + (methods - 1) * both))
    together = 1 if device.gpu else max(1, min(device.cores, splits * methods))
    minutes = seconds / together / 60
    duration = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} min"
    where = "one after another on an H100" if device.gpu else f"for {together} at a time"
    return (
        f"{runs}, about {duration} {where}; an order of magnitude, `pais-bench plan` tells more once one run has begun"
    )


def resources(device: Device) -> list[Choice]:
    """Return what a training requests: a GPU, whose memory its batch may fill; nothing on a CPU."""
    reason = "a training or prediction has a GPU of its own, whose memory the batch may fill"
    return [Choice({"train": {"gpus": 1}}, reason)] if device.gpu else []


def methods(pretrained: bool, percents: Sequence[float]) -> Choice:
    """Return the methods: PAIS as released for Mask R-CNN, and from random weights as in the study `demo`.

    The oracle is left out where 100 % is among the percents, and no labels are held out.
    """
    options, why = PAIS_OF_MASK_RCNN, "PAIS as its release has it for Mask R-CNN: it weights masks alone"
    if not pretrained:
        options = {"score_threshold": 0.65, "unlabelled_weight": 0.5}
        why = "PAIS keeps what mean_teacher keeps: from random weights, less certain teachers mislead"
    values: dict[str, Any] = {"supervised": {}, "mean_teacher": {}, "pais": {"options": options}}
    if 100 in percents:
        return Choice(values, why)
    why = f"{why}; oracle learns the labels that the others must not see: the most there is to gain"
    return Choice({**values, "oracle": {}}, why)
