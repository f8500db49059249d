"""Mix the strong views of unlabelled images two by two, with their pseudo-labels: CutMix or copy-paste.

The first and the second image of a step are partners, the third and the fourth, and so on; the loader keeps them on one
rank and in one micro-batch. The seed of an image alone decides whether its view receives, and what. Both partners give
what their views were before either of them received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench import geometry
from pais_bench.study.run import CutMix, Mix
from pais_bench.training.copy_paste import measure, paste
from pais_bench.training.cutmix import cut
from pais_bench.training.received import Received, count_pixels, with_masks
from pais_bench.types import InstanceMaps, Instances, Targets, Unlabelled


@torch.no_grad()
def mix_views(
    images: Sequence[Unlabelled], targets: Sequence[Targets], mix: Mix | None, stuff: Sequence[int] = ()
) -> tuple[Sequence[Unlabelled], Sequence[Targets]]:
    """Return the images with mixed strong views, and the targets of these; without mix they are those given.

    An instance loses the pixels that another image's cover, and without a pixel it is dropped; a box is tight where its
    mask lost pixels. Weights stay those of the instance. stuff: labels of classes that are one instance per view, which
    are not copied and pasted. The host waits for the device once, and once more to learn where the instances of
    copy-paste lie.
    """
    if mix is None:
        return images, targets
    draws = [np.random.default_rng(image.seed) for image in images]
    receivers = [index for index, rng in enumerate(draws) if rng.random() < mix.prob]
    pairs = [(index, index ^ 1) for index in receivers]  # the other one of 2k and 2k + 1
    if isinstance(mix, CutMix):
        received = [
            cut(images[to].strong, images[of].strong, targets[to], targets[of], mix, draws[to]) for to, of in pairs
        ]
    else:
        measures = measure([targets[of].instances for _, of in pairs], stuff)
        received = [
            paste(images[to].strong, images[of].strong, targets[to], targets[of], measured, mix, draws[to])
            for (to, of), measured in zip(pairs, measures, strict=True)
        ]
    joined = [_join(targets[to], patch) for to, patch in zip(receivers, received, strict=True)]
    if stuff:
        joined = [
            _join_stuff(both, len(targets[to].instances), stuff) for to, both in zip(receivers, joined, strict=True)
        ]
    kept = geometry.nonzero_each([both.instances.masks.flatten(1).any(1) for both in joined])
    mixed_images, mixed_targets = list(images), list(targets)
    for to, patch, both, index in zip(receivers, received, joined, kept, strict=True):
        mixed_images[to] = replace(images[to], strong=replace(images[to].strong, image=patch.image))
        mixed_targets[to] = both[index]
    return mixed_images, mixed_targets


def _join(own: Targets, received: Received) -> Targets:
    """Return the targets of a mixed view, some of which may be without a pixel.

    Without soft masks and class_probs: they are for methods, which have weighted the instances by now.
    """
    masks, theirs = own.instances.masks & ~received.cover, received.targets
    left = with_masks(own.instances, masks, count_pixels(own.instances.masks))
    return Targets(
        Instances(**_concatenate(left, theirs.instances, "boxes", "labels", "masks", "scores", "mask_iou")),
        **_concatenate(own, theirs, "class_weight", "mask_weight", "box_weight"),
        background=received.background,
        pixel_weight=_join_pixel_weights(own, received),
    )


def _join_stuff(targets: Targets, number: int, stuff: Sequence[int]) -> Targets:
    """Return targets of which the first, so many, have the masks of the others of their class of stuff as well.

    Those others are without a pixel then, and a weight is the mean over the pixels of both.
    """
    found, labels = targets.instances, targets.instances.labels
    own, other = found[:number], found[number:]
    if not len(own) or not len(other):
        return targets
    of_stuff = torch.isin(labels[:number], torch.tensor(list(stuff), device=labels.device))
    same = (own.labels[:, None] == other.labels) & of_stuff[:, None]
    match, joined = same.float().argmax(1), same.any(1)
    masks = torch.cat(
        (own.masks | other.masks[match] & joined[:, None, None], other.masks & ~same.any(0)[:, None, None])
    )
    pixels = count_pixels(found.masks)
    first, second = pixels[:number], pixels[number:][match]
    weights: dict[str, Any] = {}
    for name in ("class_weight", "mask_weight", "box_weight"):
        mine, theirs = getattr(targets, name).split((len(own), len(other)))
        mean = (mine * first + theirs[match] * second) / (first + second).clamp(min=1)
        weights[name] = torch.cat((torch.where(joined, mean, mine), theirs))
    pixels[:number].masked_fill_(joined, -1)  # its box is that of the new mask, however many pixels it has
    return replace(targets, instances=with_masks(found, masks, pixels), **weights)


def _concatenate(first: object, second: object, *names: str) -> dict[str, Any]:
    """Return fields of two objects by name, each as one tensor."""
    return {name: torch.cat((getattr(first, name), getattr(second, name))) for name in names}


def _join_pixel_weights(own: Targets, received: Received) -> InstanceMaps | None:
    """Return the pixel weights of both images; where a pixel of the other image shows, a weight is 1."""
    if own.pixel_weight is None and received.targets.pixel_weight is None:
        return None
    first = _where_shown(_pixel_weights(own), ~received.cover[None])
    second = _where_shown(_pixel_weights(received.targets), received.shown)
    cells = [max(sides) for sides in zip(first.values.shape[1:], second.values.shape[1:], strict=True)]
    both = [_enlarged(maps, cells[0], cells[1]) for maps in (first, second)]
    return InstanceMaps(torch.cat([one.values for one in both]), torch.cat([one.boxes for one in both]), first.matrix)


def _pixel_weights(targets: Targets) -> InstanceMaps:
    """Return the pixel weights of targets, those of 1 everywhere too as maps."""
    if targets.pixel_weight is not None:
        return targets.pixel_weight
    boxes = targets.instances.boxes
    return InstanceMaps(boxes.new_ones((len(boxes), 1, 1)), boxes, torch.eye(3, dtype=torch.float64))


def _enlarged(maps: InstanceMaps, height: int, width: int) -> InstanceMaps:
    """Return upright maps with so many cells, those added below and at the right of 1, and boxes that hold all."""
    rows, columns = maps.values.shape[-2:]
    values = F.pad(maps.values, (0, width - columns, 0, height - rows), value=1.0)
    start, end = maps.boxes[:, :2], maps.boxes[:, 2:]
    factor = maps.boxes.new_tensor((width / columns, height / rows))
    return replace(maps, values=values, boxes=torch.cat((start, start + (end - start) * factor), 1))


def _where_shown(maps: InstanceMaps, shown: Tensor) -> InstanceMaps:
    """Return maps on upright boxes, with 1 in cells whose centre is not shown, bool[N,H,W] or bool[1,H,W]."""
    maps = geometry.upright_maps(maps, outside=1.0)
    count, *cells = maps.values.shape
    height, width = shown.shape[-2:]
    x, y = geometry.cell_centres(maps.boxes, (cells[0], cells[1])).floor().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    instance = torch.arange(count, device=x.device)[:, None, None]
    seen = shown.expand(count, -1, -1)[instance, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return replace(maps, values=torch.where(inside & seen, maps.values, 1.0))
