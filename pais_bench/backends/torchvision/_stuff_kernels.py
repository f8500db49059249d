"""Give each class of stuff a kernel of its own beside those that things share, as panoptic K-Net does.

A kernel of stuff is never matched: its instance is that of its class, where the image has one. It knows no other class,
and kernels of things know none of stuff. Without stuff nothing of this changes a number. Source: Zhang et al. (2021),
K-Net, NeurIPS, arXiv 2106.14855, and its release.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.backends.torchvision._kernel_update import Update
from pais_bench.backends.torchvision._matching import Match
from pais_bench.backends.torchvision._painting import by_image
from pais_bench.backends.torchvision._set_losses import NO_KERNEL, rank_loss
from pais_bench.types import LossNormalizer

NEVER = -1e4
"""Logit of a class that a kernel does not know: probability, focal loss and gradient are 0."""


class StuffKernels(nn.Module):
    """Tell the classes of kernels: `things` kernels are for every class of things, and one is for each of stuff.

    stuff are the labels of its classes. A checkpoint of a network with stuff has them.
    """

    def __init__(self, things: int, classes: int, stuff: Sequence[int]) -> None:
        super().__init__()
        self.things, self.number = things, len(stuff)
        self.most_pairs = things * (classes - len(stuff))
        labels = torch.tensor(list(stuff), dtype=torch.int64)
        kernel_of = torch.full((classes,), -1)
        kernel_of[labels] = torch.arange(things, things + len(stuff))
        known = torch.zeros(things + len(stuff), classes, dtype=torch.bool)
        known[:things] = kernel_of < 0
        known[kernel_of[labels], labels] = True
        self.register_buffer("kernel_of", kernel_of, persistent=bool(stuff))
        self.register_buffer("unknown", ~known, persistent=bool(stuff))
        self.kernel_of: Tensor
        self.unknown: Tensor

    def of(self, labels: Tensor) -> Tensor | None:
        """Return the kernel i64[K] of each instance of stuff, -1 for things; None for a network without stuff."""
        return self.kernel_of[labels] if self.number else None

    def beneath(self, labels: Tensor, counts: Sequence[int]) -> Tensor | None:
        """Return which instances of each image are stuff, bool[B,K], on which things are painted; None as in of()."""
        stuff = self.of(labels)
        return None if stuff is None else by_image(stuff >= 0, counts)

    def restrict(self, update: Update) -> Update:
        """Return a stage in which no kernel has a class that it does not know."""
        return update._replace(logits=update.logits.masked_fill(self.unknown, NEVER)) if self.number else update

    def best_pairs(self, probability: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Return the scores f32[B,n] of the best pairs of kernel and class, and their places i64[B,n] in N * C.

        Of f32[B,N,C] at most `most` pairs of things, and all kernels of stuff, by falling score.
        """
        images, _, classes = probability.shape
        scores, places = probability[:, : self.things].flatten(1).topk(min(most, self.most_pairs))
        if not self.number:
            return scores, places
        label = (~self.unknown[self.things :]).byte().argmax(1)
        own = torch.arange(self.things, self.things + self.number, device=label.device) * classes + label
        of_stuff = probability.flatten(1)[:, own]
        scores, order = torch.cat((scores, of_stuff), 1).sort(dim=1, descending=True, stable=True)
        return scores, torch.cat((places, own.expand(images, -1)), 1).gather(1, order)

    def weigh_proposals(
        self, weights: Tensor, matches: Match, matched: float | Tensor, normalizer: LossNormalizer
    ) -> Tensor:
        """Return the mask weights f32[T+1,P] of pairs with those of the proposals, the first row, of things alone.

        Proposals of stuff learn from the semantic loss. matched is what the loss is divided by; the proposals' part is
        to be divided by the number of things.
        """
        if not self.number:
            return weights
        of_thing = matches.query[0] < self.things
        first = weights[0] * of_thing * (matched / normalizer(of_thing.sum()))
        return torch.cat((first[None], weights[1:]))

    def rank(
        self, maps: Iterable[Tensor], matches: Match, owner: Tensor, weights: Tensor, normalizer: LossNormalizer
    ) -> Tensor:
        """Return the rank loss, summed over the proposals of things and all stages.

        maps: mask logits f32[B,N,h,w] of each, N the number of things alone for proposals | owner i64[B,h,w]: the
        instance on top of each cell, counted over the batch; the number of instances where none is | weights f32[K]:
        the mask weights, of which a cell has its instance's. Source: the release of K-Net, which has no weights.
        """
        cells = normalizer(owner.numel())
        of_cells = F.pad(weights, (0, 1))[owner]
        total = torch.zeros((), device=owner.device)
        for stage, masks in enumerate(maps):
            kernels = torch.full((len(weights) + 1,), NO_KERNEL, device=owner.device)
            pairs = max(stage - 1, 0)  # proposals and first stage share a match
            kernels[matches.instance[pairs]] = matches.query[pairs]
            kernels = kernels.masked_fill(kernels >= masks.shape[1], NO_KERNEL)
            total = total + rank_loss(masks, kernels[owner], of_cells, cells)
        return total
