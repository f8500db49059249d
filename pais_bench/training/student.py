"""Compute the student's losses on every stream of a step in one forward pass of one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pais_bench.errors import BenchError
from pais_bench.layers.network import Network
from pais_bench.layers.normalizers import sum_over_ranks
from pais_bench.types import TERMS, Labelled, Losses, LossNormalizer, Size, Targets, Unlabelled


class Stream:
    """Hold the views and targets of one stream, labelled or unlabelled, and the size that views are padded to.

    A plain object, as is StudentInput: Fabric takes apart the collections and dataclasses that it hands to a module.
    """

    def __init__(self, images: Sequence[Tensor], targets: Sequence[Targets], pad_to: Size) -> None:
        self.images, self.targets, self.pad_to = images, targets, pad_to


def labelled_stream(images: Sequence[Labelled], pad_to: Size) -> Stream:
    """Return the stream of labelled views, each with its ground truth at weight 1."""
    targets = [replace(Targets.unweighted(image.instances), seed=image.seed) for image in images]
    return Stream([image.view.image for image in images], targets, pad_to)


def unlabelled_stream(images: Sequence[Unlabelled], targets: Sequence[Targets], pad_to: Size) -> Stream:
    """Return the stream of strong views with their pseudo-labels."""
    seeded = [replace(target, seed=image.seed) for target, image in zip(targets, images, strict=True)]
    return Stream([image.strong.image for image in images], seeded, pad_to)


def normalize_mask_weights(streams: Sequence[Stream]) -> None:
    """Scale the mask weights of a step's pseudo-labels to a mean of 1, over its micro-batches and ranks. Collective.

    A mask loss that is divided by the number of pseudo-labels is then divided by the sum of their weights.
    """
    weights = torch.cat([target.mask_weight for stream in streams for target in stream.targets])
    total, number = sum_over_ranks(torch.stack((weights.sum(), torch.ones_like(weights).sum())))
    factor = number / total.clamp(min=1e-6)
    for stream in streams:
        stream.targets = [replace(target, mask_weight=target.mask_weight * factor) for target in stream.targets]


class StudentInput:
    """Hold the streams of one micro-batch by name."""

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self.streams = streams


class StudentLosses(nn.Module):
    """Wrap the student, so that a step is one forward pass of one module however many streams it has.

    Two forward passes of a module under DistributedDataParallel break its gradient buckets; one that calls the student
    twice does not.
    """

    def __init__(self, student: Network) -> None:
        super().__init__()
        self.student = student
        self.momentum = {module: module.momentum for module in student.modules() if isinstance(module, _BatchNorm)}

    def forward(self, inputs: StudentInput, normalizer: LossNormalizer) -> dict[str, Losses]:
        """Return the losses of each stream.

        Running statistics of batch norm follow the labelled views alone: strong augmentation is for training. Raises
        BenchError for a term that no method could weight, as TERMS does not name it.
        """
        losses: dict[str, Losses] = {}
        for name, stream in inputs.streams.items():
            for norm, momentum in self.momentum.items():
                norm.momentum = momentum if name == "labelled" else 0.0
            losses[name] = self.student.loss(stream.images, stream.targets, normalizer, stream.pad_to)
            if unknown := sorted(losses[name].keys() - set(TERMS)):
                place = type(self.student).__module__
                raise BenchError(f"{place}: loss has the term '{unknown[0]}'; add it to TERMS in pais_bench/types.py")
        return losses
