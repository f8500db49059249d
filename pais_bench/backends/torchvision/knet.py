"""What is K-Net with weights? Kernels that become masks, stage by stage, on torchvision's ResNet-50 and FPN.

The network, its matching and its losses are those of the PAIS release [paper.md 4; K-Net, arXiv 2106.14855], with a
mask-IoU branch at each stage; docs/networks.md says what differs. A query knows no box, so box_weight has no meaning
here and is ignored. Costs of the matching are not weighted: an instance of weight 0 still claims a query, which then
learns nothing of class and mask, not even that it is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.asking import enter_training, evaluating
from pais_bench.backends.torchvision._backbones import Small, resnet50_fpn
from pais_bench.backends.torchvision._kernel_update import KernelHead, KernelUpdate, Proposal, Update, full
from pais_bench.backends.torchvision._matching import Match, cost, match
from pais_bench.backends.torchvision._semantic_fpn import SemanticFPN
from pais_bench.backends.torchvision._set_losses import (
    class_loss,
    dice_loss,
    mask_loss,
    semantic_loss,
)
from pais_bench.config import Frozen
from pais_bench.geometry import boxes_of
from pais_bench.losses import mask_iou, quality_loss
from pais_bench.shares import mean_count, padded_size
from pais_bench.types import Instances, Targets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB


class Options(Frozen):
    """Set the network; the defaults are K-Net R50-FPN with 100 kernels and 3 stages [paper.md 4]."""

    backbone: Literal["resnet50", "small"] = "resnet50"
    weights: Path | None = None
    """State dict of torchvision's resnet50 on disk (ImageNet); None trains from random weights."""
    channels: int = Field(default=256, ge=1)
    kernels: int = Field(default=100, ge=1)
    """Most instances that an image can have."""
    stages: int = Field(default=3, ge=1)
    heads: int = Field(default=8, ge=1)
    ffn: int = Field(default=2048, ge=1)
    groups: int = Field(default=32, ge=1)
    stride: Literal[2, 4, 8] = 8
    """Stride of the masks, px; they are supervised at half of it."""
    detections: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _channels_divide(self) -> Options:
        if self.channels % self.heads or self.channels % self.groups:
            raise ValueError(f"{self.channels} channels are no multiple of {self.heads} heads and {self.groups} groups")
        return self


class Backend(nn.Module):
    """Offer loss and predict over K-Net."""

    def __init__(self, classes: int, options: Options) -> None:
        super().__init__()
        small = options.backbone == "small"
        levels, channels = 3 if small else 4, options.channels
        self.detections, self.stride, self.multiple = options.detections, options.stride, 2 ** (levels + 1)
        backbone: Any = Small() if small else resnet50_fpn(options.weights)
        backbone.fpn.extra_blocks = None  # no P6
        self.backbone = backbone
        self.semantic_fpn = SemanticFPN(levels, backbone.out_channels, channels, options.groups, options.stride)
        self.kernel_head = KernelHead(options.kernels, classes, channels, options.groups)
        self.stages = nn.ModuleList(
            KernelUpdate(classes, channels, options.heads, options.ffn) for _ in range(options.stages)
        )

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.backbone.body.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses class, mask, dice, quality and semantic of a batch of views, summed over the stages.

        The proposals, before the first stage, pay mask and dice as well.
        """
        enter_training(self)
        batch = self._batch(images)
        proposal, updates = self._forward(batch)
        with torch.autocast(batch.device.type, enabled=False):
            masks = [self._fine(proposal.masks), *(self._fine(update.masks) for update in updates)]
            truth = [self._soft(target.instances.masks, batch.shape[-2:], masks[0].dtype) for target in targets]
            # Proposals and first stage share the match of the proposals; a later stage has that of the one before it.
            costs = _costs(masks[:-1], [None, *(update.logits for update in updates[:-1])], targets, truth)
            first, *later = match(costs)
            matches = [first, first, *later]
            count = mean_count(len(first.image), batch.device)
            weights, soft = torch.cat([target.mask_weight for target in targets]), torch.cat(truth)

            losses: dict[str, Tensor] = {}
            losses["class"] = _sum(
                _class_loss(u.logits, m, targets, count) for u, m in zip(updates, matches[1:], strict=True)
            )
            pairs = [
                (one[m.image, m.query], soft[m.instance], weights[m.instance])
                for one, m in zip(masks, matches, strict=True)
            ]
            losses["mask"] = _sum(mask_loss(*pair, count) for pair in pairs)
            losses["dice"] = _sum(dice_loss(*pair, count) for pair in pairs)
            losses["quality"] = _sum(
                quality_loss(u.quality[m.image, m.query], mask_iou(logits >= 0, aim), count)
                for u, m, (logits, aim, _) in zip(updates, matches[1:], pairs[1:], strict=True)
            )
            losses["semantic"] = semantic_loss(
                self._fine(proposal.semantic), _paint(targets, truth, proposal.semantic.shape[1])
            )
        return losses

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give at most `detections` instances a view, the best pairs of query and class; restore the mode.

        Masks are cut at 0.5 in the pixels of the view, and empty ones dropped. The release keeps its teacher's maps
        soft until they are warped into the student's view; ours are bool from here on.
        """
        with evaluating(self):
            batch = self._batch(images)
            last = self._forward(batch)[1][-1]
            return [
                self._instances(logits, quality, masks, batch.shape[-2:], image.shape[-2:])
                for logits, quality, masks, image in zip(last.logits, last.quality, last.masks, images, strict=True)
            ]

    def _batch(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise, and pad with 0 at the right and below to one size that the strides of all levels divide."""
        size = padded_size(images, self.multiple)
        mean, std = (images[0].new_tensor(values)[:, None, None] for values in (MEAN, STD))
        return torch.stack([_pad((image - mean) / std, size) for image in images])

    def _forward(self, batch: Tensor) -> tuple[Proposal, list[Update]]:
        proposal = self.kernel_head(*self.semantic_fpn(list(self.backbone(batch).values())))
        updates: list[Update] = []
        masks, kernels = proposal.masks, proposal.kernels
        for stage in self.stages:
            updates.append(stage(proposal.features, masks, kernels))
            masks, kernels = updates[-1].masks, updates[-1].kernels
        return proposal, updates

    def _fine(self, maps: Tensor) -> Tensor:
        """Bring logits f32[B,k,h,w] to half the stride, at which they are matched and supervised."""
        return F.interpolate(full(maps), scale_factor=2, mode="bilinear")

    def _soft(self, masks: Tensor, padded: Sequence[int], kind: torch.dtype = torch.float32) -> Tensor:
        """Bring masks bool[K,H,W] to half the stride by bilinear sampling: soft at the borders."""
        size = [2 * side // self.stride for side in padded]
        if len(masks) == 0:
            return torch.zeros((0, *size), device=masks.device, dtype=kind)
        return F.interpolate(_pad(masks.to(kind), padded)[None], size, mode="bilinear")[0]

    def _instances(
        self, logits: Tensor, quality: Tensor, masks: Tensor, padded: Sequence[int], size: Sequence[int]
    ) -> Instances:
        classes = logits.shape[1]
        scores, best = full(logits).sigmoid().flatten().topk(min(self.detections, logits.numel()))
        chosen, place = (best // classes).unique(return_inverse=True)
        soft = F.interpolate(self._fine(masks[chosen][None]).sigmoid(), padded, mode="bilinear")[0]
        seen = (soft > 0.5)[:, : size[0], : size[1]]
        probable = full(quality).sigmoid()[chosen].float()
        found = Instances(boxes_of(seen)[place], best % classes, seen[place], scores.float(), probable[place])
        return found[found.masks.flatten(1).any(1)]


def _costs(
    masks: Sequence[Tensor], logits: Sequence[Tensor | None], targets: Sequence[Targets], truth: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Give the costs of every stage's queries, by stage and image."""
    return [
        [
            cost(seen[b], truth[b], None if scores is None else scores[b], target.instances.labels)
            for b, target in enumerate(targets)
        ]
        for seen, scores in zip(masks, logits, strict=True)
    ]


def _class_loss(logits: Tensor, found: Match, targets: Sequence[Targets], count: float | Tensor) -> Tensor:
    """Pay for every query: the matched by their instance's weight, the others as background."""
    background = logits.new_tensor([target.background for target in targets])
    weights = background[:, None].repeat(1, logits.shape[1])
    labels = torch.full_like(weights, logits.shape[2], dtype=torch.int64)
    weights[found.image, found.query] = torch.cat([target.class_weight for target in targets])[found.instance]
    labels[found.image, found.query] = torch.cat([target.instances.labels for target in targets])[found.instance]
    return class_loss(logits.flatten(0, 1), labels.flatten(), weights.flatten(), count)


def _paint(targets: Sequence[Targets], truth: Sequence[Tensor], classes: int) -> Tensor:
    """Give the class i64[B,h,w] of each cell that an instance touches, later ones on top; `classes` elsewhere."""
    painted = []
    for target, maps in zip(targets, truth, strict=True):
        order = torch.arange(1, len(maps) + 1, device=maps.device)[:, None, None] * (maps > 0)
        top = torch.cat((order.new_zeros((1, *maps.shape[1:])), order)).amax(0)
        painted.append(F.pad(target.instances.labels, (1, 0), value=classes)[top])
    return torch.stack(painted)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def _pad(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Pad f32[k,H,W] with zeros at the right and below."""
    return F.pad(maps, (0, size[1] - maps.shape[-1], 0, size[0] - maps.shape[-2]))
