"""State the rules that a study follows from its data: each a function of a summary to values with their reason.

docs/reference/data.md lists them. Sizes of objects are sides of boxes of the same area, in pixels of a view. Rules of
the network and the training loop are in network.py and schedule.py.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pais_bench.init.device import Device
from pais_bench.init.summary import FOLDS, PERCENTS, DataSummary

SMALL_OBJECT, SMALL_QUANTILE = 40, 0.25
"""Pixels that the objects at this quantile have in a view on a CPU: about ten cells of the finest level's stride."""
TINY_OBJECT = 16
"""Pixels up to which views on a CPU enlarge them; beyond it, the time of larger views is better spent on steps."""
CPU_SIDES = (128, 192)
GPU_SIDES = ((24, 800), (12, 640), (0, 512))
"""Least memory of a GPU in GB, and the shorter side of its views."""
MOST_ENLARGED = 1.67
"""Factor by which views are larger than the photos at most on a GPU; COCO's usual 800 px of 480."""
MOST_ENLARGED_CPU = 1.5
"""The same on a CPU, for photos of tiny objects alone (docs/benchmarks/photos.md has an example)."""
LEAST_LABELLED = 8
RARE = 10
"""Labelled images of a class below which a draw without regard to class may miss it: e^-10 is 1 of 22,000."""


class Choice(NamedTuple):
    """Hold values of a section of the study, and why they are these."""

    values: dict[str, Any]
    reason: str


def view_sizes(summary: DataSummary, device: Device) -> Choice:
    """Return the keys of `input`.

    On a CPU the shorter side gives the smaller quarter of the objects SMALL_OBJECT pixels, within CPU_SIDES. On a GPU
    it is that of the device's memory. Neither enlarges the median photo beyond its factor.
    """
    median = summary.short_sides[1]
    if device.gpu:
        wanted: float = next(side for memory, side in GPU_SIDES if device.memory >= memory)
        limit, spread = MOST_ENLARGED * median, 0.25
        why = f"{wanted} px for {device.memory:.0f} GB"
    else:
        quarter = summary.object_side(SMALL_QUANTILE)
        wanted = min(max(SMALL_OBJECT / max(quarter, 1e-6), CPU_SIDES[0]), CPU_SIDES[1])
        enlarged = min(TINY_OBJECT / max(quarter, 1e-6), MOST_ENLARGED_CPU * median)
        limit, spread = max(median, enlarged), 0.2
        why = f"a quarter of the objects is below {quarter:.0%} of the shorter side; {SMALL_OBJECT} px for these, "
        why += f"within {CPU_SIDES[0]}..{CPU_SIDES[1]} px for a CPU"
    if limit < wanted:
        why += f", and no more than {limit / median:.3g} times the photos"
    side = _multiple(min(wanted, limit), 16)
    longest = _multiple(side * summary.aspect, 32)
    values = {
        "min_size_train": [max(16, round(side * (1 - spread))), round(side * (1 + spread))],
        "max_size_train": _multiple(longest * (1 + spread), 32),
        "min_size_test": side,
        "max_size_test": longest,
    }
    sides = sorted({round(summary.short_sides[0]), round(summary.short_sides[2])})
    return Choice(values, f"shorter sides of the photos are {' to '.join(map(str, sides))} px; {why}")


def percents(summary: DataSummary, device: Device) -> Choice:
    """Return the three smallest percents that label LEAST_LABELLED images, and every class in every fold.

    Where there are none, the three largest that label every class, and else the three largest of all; the reason says
    what is missing. On a CPU the first and the last of the three. With further photos that have no labels, 100 is the
    last one.
    """
    total = summary.images["train"]
    labelled = {percent: int(percent / 100 * total) for percent in PERCENTS}
    complete = [percent for percent in PERCENTS if labelled[percent] and not summary.unlabelled_classes[percent]]
    if chosen := [percent for percent in complete if labelled[percent] >= LEAST_LABELLED][:3]:
        why = f"the smallest with {LEAST_LABELLED} photos or more and a label of every class in every fold"
    elif chosen := complete[-3:]:
        why = f"fewer than {LEAST_LABELLED} photos teach little: annotate more"
    else:
        chosen = [percent for percent in PERCENTS if labelled[percent]][-3:] or [PERCENTS[-1]]
        worst = summary.unlabelled_classes[chosen[0]]
        why = f"up to {worst} of {len(summary.learnable)} classes have no label at {chosen[0]} %, for want of images"
    if not device.gpu and len(chosen) > 2:
        chosen, why = [chosen[0], chosen[-1]], f"{why}; the first and the third of these, for a CPU"
    if further := summary.images.get("unlabelled"):
        chosen = [*(chosen if device.gpu else chosen[:1]), 100]
        why = f"{why}; 100 % asks what the {further} photos without labels add to all labels, and its folds are seeds"
    labelled[100] = total
    counts = ", ".join(str(labelled[percent]) for percent in chosen)
    return Choice({"percents": chosen}, f"{counts} of {total} photos; {why}")


def folds(device: Device) -> Choice:
    """Return the folds: five where a GPU trains, else three."""
    count = len(FOLDS) if device.gpu else 3
    return Choice(
        {"folds": list(FOLDS[:count])}, "five, as papers have" if device.gpu else "three, for a CPU; a paper needs five"
    )


def family(summary: DataSummary, smallest: float) -> Choice:
    """Return the split family: drawn at random only where the rarest class has many labels at the smallest percent."""
    rarest = min(summary.learnable, key=lambda name: summary.class_images[name])
    expected = summary.class_images[rarest] * smallest / 100
    reason = (
        f"the rarest class, '{rarest}', is in {summary.class_images[rarest]} photos, {expected:.3g} at {smallest:g} %"
    )
    if expected >= RARE:
        return Choice({"family": "soft_teacher"}, f"{reason}: a plain draw, as of COCO, has it in every fold")
    return Choice({"family": "stratified"}, f"{reason}: a plain draw may miss it")


def _multiple(pixels: float, unit: int) -> int:
    """Return the next multiple of a unit, at least one, of pixels that may have a rounding error."""
    return max(1, math.ceil(round(pixels / unit, 3))) * unit
