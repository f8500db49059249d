"""Build K-Net with a weight for every instance in its losses, on torchvision's ResNet-50 and FPN.

The network, its matching and its losses are those of the PAIS release [K-Net, arXiv 2106.14855], with a mask-IoU branch
at each stage; docs/explanation/networks.md says what differs. A query knows no box, so box_weight is ignored. Matching
costs are not weighted: an instance of weight 0 still takes a query, which then learns nothing of class and mask, not
even that it is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.backends.base import BackboneOptions
from pais_bench.backends.torchvision._backbones import Small, resnet50_fpn
from pais_bench.backends.torchvision._inputs import pad_maps, to_batch
from pais_bench.backends.torchvision._kernel_update import KernelHead, KernelUpdate, Proposal, Update, to_full_precision
from pais_bench.backends.torchvision._matching import Match, match, matching_cost
from pais_bench.backends.torchvision._semantic_fpn import SemanticFPN
from pais_bench.backends.torchvision._set_losses import class_loss, dice_loss, mask_loss, semantic_loss
from pais_bench.geometry import masks_to_boxes
from pais_bench.layers.losses import mask_iou_loss, soft_mask_iou
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.types import Instances, Losses, LossNormalizer, Size, Targets


class Options(BackboneOptions):
    """Set the network; the defaults are K-Net R50-FPN with 100 kernels and 3 stages."""

    channels: int = Field(default=256, ge=1)
    kernels: int = Field(default=100, ge=1)
    """Most instances that an image can have."""
    stages: int = Field(default=3, ge=1)
    heads: int = Field(default=8, ge=1)
    ffn: int = Field(default=2048, ge=1)
    groups: int = Field(default=32, ge=1)
    stride: Literal[2, 4, 8] = 8
    """Stride of the masks, px; they are supervised at half of it."""
    detections_per_img: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _channels_divide(self) -> Options:
        if self.channels % self.heads or self.channels % self.groups:
            raise ValueError(f"{self.channels} channels are no multiple of {self.heads} heads and {self.groups} groups")
        return self


class Backend(nn.Module):
    """Compute losses and predictions with K-Net."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__()
        small = options.backbone == "small"
        levels, channels = 3 if small else 4, options.channels
        self.detections_per_img, self.stride = options.detections_per_img, options.stride
        self.divisor = 2 ** (levels + 1)
        backbone: Any = Small() if small else resnet50_fpn(options.pretrained_backbone)
        backbone.fpn.extra_blocks = None  # no P6
        self.backbone = backbone
        self.semantic_fpn = SemanticFPN(levels, backbone.out_channels, channels, options.groups, options.stride)
        self.kernel_head = KernelHead(options.kernels, num_classes, channels, options.groups)
        self.stages = nn.ModuleList(
            KernelUpdate(num_classes, channels, options.heads, options.ffn) for _ in range(options.stages)
        )

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.backbone.body.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return class, mask, dice, mask_iou and semantic of a batch of views, summed over the stages.

        The proposals, before the first stage, have a mask and a dice loss as well.
        """
        ensure_train_mode(self)
        batch = to_batch(images, self.divisor, pad_to)
        proposal, updates = self._forward(batch)
        with torch.autocast(batch.device.type, enabled=False):
            masks = [self._upsample(proposal.masks), *(self._upsample(update.masks) for update in updates)]
            soft_masks = [self._resample(t.instances.masks, batch.shape[-2:], masks[0].dtype) for t in targets]
            # Proposals and first stage share the match of the proposals; a later stage has that of the one before it.
            costs = _costs(masks[:-1], [None, *(update.logits for update in updates[:-1])], targets, soft_masks)
            first, *later = match(costs)
            matches = [first, first, *later]
            matched = normalizer(len(first.image))
            weights, soft = torch.cat([target.mask_weight for target in targets]), torch.cat(soft_masks)

            losses: Losses = {}
            losses["class"] = _sum(
                _class_loss(u.logits, m, targets, matched) for u, m in zip(updates, matches[1:], strict=True)
            )
            pairs = [
                (logits[m.image, m.query], soft[m.instance], weights[m.instance])
                for logits, m in zip(masks, matches, strict=True)
            ]
            losses["mask"] = _sum(mask_loss(*pair, matched) for pair in pairs)
            losses["dice"] = _sum(dice_loss(*pair, matched) for pair in pairs)
            losses["mask_iou"] = _sum(
                mask_iou_loss(u.mask_iou[m.image, m.query], soft_mask_iou(logits >= 0, target), matched)
                for u, m, (logits, target, _) in zip(updates, matches[1:], pairs[1:], strict=True)
            )
            semantic = _paint(targets, soft_masks, proposal.semantic.shape[1])
            losses["semantic"] = semantic_loss(self._upsample(proposal.semantic), semantic, normalizer)
        return losses

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0)) -> list[Instances]:
        """Return at most `detections_per_img` instances a view, the best pairs of query and class; restore the mode.

        Masks are cut at 0.5 in the pixels of the view, and empty ones dropped. The release keeps its teacher's maps
        soft until they are warped into the student's view; ours are bool from here on.
        """
        with eval_mode(self):
            batch = to_batch(images, self.divisor, pad_to)
            last = self._forward(batch)[1][-1]
            return [
                self._instances(logits, mask_iou, masks, batch.shape[-2:], image.shape[-2:])
                for logits, mask_iou, masks, image in zip(last.logits, last.mask_iou, last.masks, images, strict=True)
            ]

    def _forward(self, batch: Tensor) -> tuple[Proposal, list[Update]]:
        proposal = self.kernel_head(*self.semantic_fpn(list(self.backbone(batch).values())))
        updates: list[Update] = []
        masks, kernels = proposal.masks, proposal.kernels
        for stage in self.stages:
            updates.append(stage(proposal.features, masks, kernels))
            masks, kernels = updates[-1].masks, updates[-1].kernels
        return proposal, updates

    def _upsample(self, maps: Tensor) -> Tensor:
        """Bring logits f32[B,k,h,w] to half the stride, at which they are matched and supervised."""
        return F.interpolate(to_full_precision(maps), scale_factor=2, mode="bilinear")

    def _resample(self, masks: Tensor, padded: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Bring masks bool[K,H,W] to half the stride by bilinear sampling: soft at the borders."""
        size = [2 * side // self.stride for side in padded]
        if len(masks) == 0:
            return torch.zeros((0, *size), device=masks.device, dtype=dtype)
        return F.interpolate(pad_maps(masks.to(dtype), padded)[None], size, mode="bilinear")[0]

    def _instances(
        self, logits: Tensor, mask_iou: Tensor, masks: Tensor, padded: Sequence[int], size: Sequence[int]
    ) -> Instances:
        classes = logits.shape[1]
        count = min(self.detections_per_img, logits.numel())
        scores, best = to_full_precision(logits).sigmoid().flatten().topk(count)
        queries, position = (best // classes).unique(return_inverse=True)
        soft = F.interpolate(self._upsample(masks[queries][None]).sigmoid(), padded, mode="bilinear")[0]
        binary = (soft > 0.5)[:, : size[0], : size[1]]
        predicted_iou = to_full_precision(mask_iou).sigmoid()[queries].float()
        instances = Instances(
            masks_to_boxes(binary)[position], best % classes, binary[position], scores.float(), predicted_iou[position]
        )
        return instances[instances.masks.flatten(1).any(1)]


def _costs(
    masks: Sequence[Tensor], logits: Sequence[Tensor | None], targets: Sequence[Targets], soft_masks: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Return the matching costs of every stage's queries, by stage and image."""
    return [
        [
            matching_cost(stage[b], soft_masks[b], None if scores is None else scores[b], target.instances.labels)
            for b, target in enumerate(targets)
        ]
        for stage, scores in zip(masks, logits, strict=True)
    ]


def _class_loss(logits: Tensor, matches: Match, targets: Sequence[Targets], matched: float | Tensor) -> Tensor:
    """Return the class loss of every query: matched ones have their instance's weight, the others the background's."""
    background = logits.new_tensor([target.background for target in targets])
    weights = background[:, None].repeat(1, logits.shape[1])
    labels = torch.full_like(weights, logits.shape[2], dtype=torch.int64)
    weights[matches.image, matches.query] = torch.cat([t.class_weight for t in targets])[matches.instance]
    labels[matches.image, matches.query] = torch.cat([t.instances.labels for t in targets])[matches.instance]
    return class_loss(logits.flatten(0, 1), labels.flatten(), weights.flatten(), matched)


def _paint(targets: Sequence[Targets], soft_masks: Sequence[Tensor], classes: int) -> Tensor:
    """Return the class i64[B,h,w] of each cell that an instance touches, later ones on top; `classes` elsewhere."""
    painted = []
    for target, maps in zip(targets, soft_masks, strict=True):
        order = torch.arange(1, len(maps) + 1, device=maps.device)[:, None, None] * (maps > 0)
        top = torch.cat((order.new_zeros((1, *maps.shape[1:])), order)).amax(0)
        painted.append(F.pad(target.instances.labels, (1, 0), value=classes)[top])
    return torch.stack(painted)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
