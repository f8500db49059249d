"""Build K-Net with a weight for every instance in its losses, on a backbone and FPN of torchvision's or timm's.

The network, its matching and its losses are those of the PAIS release [K-Net, arXiv 2106.14855], with a mask-IoU branch
at each stage; docs/explanation/networks.md says what differs. A query knows no box, so box_weight is ignored. Matching
costs are not weighted: an instance of weight 0 still takes a query, which then learns nothing of class and mask, not
even that it is background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.backends.torchvision._backbones import PyramidOptions, build_backbone
from pais_bench.backends.torchvision._inputs import to_batch
from pais_bench.backends.torchvision._kernel_update import KernelHead, KernelUpdate, Proposal, Update
from pais_bench.backends.torchvision._matching import Match, match, matching_cost
from pais_bench.backends.torchvision._painting import by_image, paint
from pais_bench.backends.torchvision._query_maps import SoftPredictions, query_pixel_weights
from pais_bench.backends.torchvision._semantic_fpn import SemanticFPN
from pais_bench.backends.torchvision._set_losses import class_loss, dice_loss, mask_loss, semantic_loss
from pais_bench.backends.torchvision._stuff_kernels import StuffKernels
from pais_bench.geometry import masks_to_boxes
from pais_bench.layers.compilation import compile_once
from pais_bench.layers.losses import mask_iou_loss, soft_mask_iou
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.network import Network
from pais_bench.layers.paste import split_views
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import boxless_background
from pais_bench.types import Instances, Keep, Losses, LossNormalizer, Size, Targets

AT_ONCE = 32
"""Masks that are rasterised at a time, whose maps are float at the size of the view."""


class Options(PyramidOptions):
    """Set the network; the defaults are K-Net R50-FPN with 100 kernels and 3 stages."""

    channels: int = Field(default=256, ge=1)
    kernels: int = Field(default=100, ge=1)
    """Most things that an image can have. Each class of stuff has a kernel more."""
    stages: int = Field(default=3, ge=1)
    heads: int = Field(default=8, ge=1)
    ffn: int = Field(default=2048, ge=1)
    groups: int = Field(default=32, ge=1)
    stride: Literal[2, 4, 8] = 8
    """Stride of the masks, px; they are supervised at half of it."""
    detections_per_img: int = Field(default=100, ge=1)
    release_init: bool = False
    """Draw start values from the distributions of the PAIS release where torchvision and K-Net have others."""

    @model_validator(mode="after")
    def _channels_divide(self) -> Options:
        if self.channels % self.heads or self.channels % self.groups:
            raise ValueError(f"{self.channels} channels are no multiple of {self.heads} heads and {self.groups} groups")
        return self


class Backend(Network):
    """Compute losses and predictions with K-Net; stuff are the labels of classes that have a kernel of their own."""

    def __init__(self, num_classes: int, options: Options, stuff: Sequence[int] = (), pretrained: bool = True) -> None:
        super().__init__()
        backbone = build_backbone(options, pretrained)
        channels = options.channels
        self.detections_per_img, self.stride = options.detections_per_img, options.stride
        self.compile_backbone = options.compile
        self.divisor = 2 ** (backbone.levels + 1)
        backbone.fpn.extra_blocks = None  # no P6
        self.backbone = backbone
        self.semantic_fpn = SemanticFPN(
            backbone.levels, backbone.out_channels, channels, options.groups, options.stride
        )
        self.kernel_head = KernelHead(options.kernels, num_classes, channels, options.groups, stuff)
        self.stuff_kernels = StuffKernels(options.kernels, num_classes, stuff)
        self.stages = nn.ModuleList(
            KernelUpdate(num_classes, channels, options.heads, options.ffn) for _ in range(options.stages)
        )
        if options.release_init:
            self._start_as_released()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.backbone.body.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return class, mask, dice, mask_iou and semantic of a batch of views, and rank with stuff, over all stages.

        The proposals, before the first stage, have a mask and a dice loss as well, and rank.
        """
        ensure_train_mode(self)
        batch = to_batch(images, self.divisor, pad_to, self.backbone.statistics)
        proposal, updates = self._forward(batch)
        with torch.autocast(batch.device.type, enabled=False):
            counts = [len(target.instances) for target in targets]
            maps = torch.stack([proposal.masks, *(update.masks for update in updates)])
            logits, mask_iou = (torch.stack([getattr(u, name) for u in updates]) for name in ("logits", "mask_iou"))
            soft = self._resample([t.instances.masks for t in targets], batch.shape[-2:], to_full_precision(maps).dtype)
            soft_by_image = by_image(soft, counts)
            labels = torch.cat([target.instances.labels for target in targets])
            labels_by_image = by_image(labels, counts)
            of_things = slice(self.stuff_kernels.things)
            costs = [
                matching_cost(self._upsample(masks[:, of_things]), soft_by_image, scores, labels_by_image)
                for masks, scores in zip(maps[:-1].detach(), [None, *logits[:-1, :, of_things]], strict=True)
            ]
            matches = match(torch.stack(costs), counts, self.stuff_kernels.of(labels))
            matched = normalizer(matches.image.shape[1])

            # Proposals and first stage share the match of the proposals; a later stage has that of the one before it.
            image, query, instance = (torch.cat((pairs[:1], pairs)) for pairs in matches)
            masks = self._upsample(maps[_stages(image), image, query].flatten(0, 1)[:, None])[:, 0]
            target = soft[instance.flatten()]
            mask_weight = torch.cat([target.mask_weight for target in targets])
            weights = self.stuff_kernels.weigh_proposals(mask_weight[instance], matches, matched, normalizer).flatten()
            pixel_weights = query_pixel_weights(targets, soft, self.stride // 2)
            if pixel_weights is not None:
                pixel_weights = pixel_weights[instance.flatten()]
            predicted_iou = mask_iou[_stages(matches.image), matches.image, matches.query].flatten()
            after_proposals = slice(image.shape[1], None)
            iou = soft_mask_iou(masks[after_proposals] >= 0, target[after_proposals])
            beneath = self.stuff_kernels.beneath(labels, counts)
            semantic = paint(soft_by_image, labels_by_image, proposal.semantic.shape[1], beneath)
            losses = {
                "class": _class_loss(logits, matches, labels, targets, matched),
                "mask": mask_loss(masks, target, weights, matched, pixel_weights),
                "dice": dice_loss(masks, target, weights, matched),
                "mask_iou": mask_iou_loss(predicted_iou, iou, matched),
                "semantic": semantic_loss(self._upsample(proposal.semantic), semantic, normalizer),
            }
            if beneath is not None:
                counted = soft_by_image * by_image(mask_weight > 0, counts)[..., None, None]
                indices = torch.arange(len(labels), device=labels.device)
                owner = paint(counted, by_image(indices, counts), len(labels), beneath)
                upsampled = (self._upsample(one) for one in (proposal.masks[:, of_things], *maps[1:]))
                losses["rank"] = self.stuff_kernels.rank(upsampled, matches, owner, mask_weight, normalizer)
            return losses

    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return at most `detections_per_img` things a view, the best pairs of query and class; restore the mode.

        Each class of stuff is an instance more. Masks are cut at 0.5 in the pixels of the view, and empty ones dropped.
        The release keeps its teacher's maps soft until they are warped into the student's view; ours are bool from here
        on. Boxes are those of the masks, so that they are 0 for keep.
        """
        return self._predict(images, pad_to, keep)

    def predict_soft(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> list[Instances]:
        """Return what predict does, with soft masks at the stride and class probabilities, which keep sees too.

        The probabilities are sigmoids, and do not sum to 1.
        """
        return self._predict(images, pad_to, keep, soft=True)

    @torch.no_grad()
    def _predict(
        self, images: Sequence[Tensor], pad_to: Size, keep: Keep | None, soft: bool = False
    ) -> list[Instances]:
        with eval_mode(self):
            batch = to_batch(images, self.divisor, pad_to, self.backbone.statistics)
            last = self._forward(batch)[1][-1]
        found, queries = self._rank(last)
        if soft:
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            soft_predictions = SoftPredictions.of(last, queries, sizes, self.stride)
            found = [
                soft_predictions.add_to(one, slice(k * len(one), (k + 1) * len(one))) for k, one in enumerate(found)
            ]
        kept = torch.stack([one.labels >= 0 if keep is None else keep(one) for one in found])
        image, place = kept.nonzero().unbind(1)
        inside = torch.zeros((len(images), *batch.shape[-2:]), dtype=torch.bool, device=batch.device)
        for view, pixels in zip(images, inside, strict=True):
            pixels[: view.shape[-2], : view.shape[-1]].fill_(True)
        masks = torch.cat(
            [
                self._rasterise(last.masks[of_image, query], inside[of_image])
                for of_image, query in zip(image.split(AT_ONCE), queries[image, place].split(AT_ONCE), strict=True)
            ]
        )
        values = (torch.stack([getattr(one, name) for one in found]) for name in ("labels", "scores", "mask_iou"))
        labels, scores, mask_iou = (value[image, place] for value in values)
        detections = Instances(masks_to_boxes(masks), labels, masks, scores, mask_iou)
        if soft:
            detections = soft_predictions.add_to(detections, image * queries.shape[1] + place)
        return _split(detections, image, images)

    def _start_as_released(self) -> None:
        """Draw the start values in which the PAIS release is neither torchvision (FPN) nor K-Net (the others)."""
        for lateral in self.backbone.fpn.inner_blocks.modules():
            if isinstance(lateral, nn.Conv2d):
                nn.init.xavier_uniform_(lateral.weight)
        transforms: list[Any] = [stage.transform for stage in self.stages]
        for conv in (self.semantic_fpn.location[0], *transforms):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        for transform in transforms:
            nn.init.zeros_(transform.bias)

    def _forward(self, batch: Tensor) -> tuple[Proposal, list[Update]]:
        if self.compile_backbone:
            compile_once(self.backbone)
        proposal = self.kernel_head(*self.semantic_fpn(list(self.backbone(batch).values())))
        updates: list[Update] = []
        masks, kernels = proposal.masks, proposal.kernels
        for stage in self.stages:
            updates.append(self.stuff_kernels.restrict(stage(proposal.features, masks, kernels)))
            masks, kernels = updates[-1].masks, updates[-1].kernels
        return proposal, updates

    def _upsample(self, maps: Tensor) -> Tensor:
        """Bring logits f32[B,k,h,w] to half the stride, at which they are matched and supervised."""
        return F.interpolate(to_full_precision(maps), scale_factor=2, mode="bilinear")

    def _resample(self, masks: Sequence[Tensor], padded: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Bring the masks bool[K,H,W] of all images to half the stride, soft at the borders: f32[sum of K,h,w].

        Bilinear sampling is the mean of the four pixels around the centre of a cell, which is read from them directly,
        without the masks in float at full size.
        """
        counts = [len(image) for image in masks]
        canvas = masks[0].new_zeros((sum(counts), *padded))
        for own, image in zip(canvas.split(counts), masks, strict=True):
            own[:, : image.shape[1], : image.shape[2]] = image
        cell = self.stride // 2
        before, after = max(cell // 2 - 1, 0), cell // 2
        rows = canvas[:, before::cell].to(dtype) + canvas[:, after::cell]
        return (rows[..., before::cell] + rows[..., after::cell]) / 4

    def _rank(self, last: Update) -> tuple[list[Instances], Tensor]:
        """Return each image's best pairs of query and class, without boxes and masks, and their queries i64[B,n]."""
        classes, probability = last.logits.shape[2], to_full_precision(last.logits).sigmoid()
        scores, best = self.stuff_kernels.best_pairs(probability, self.detections_per_img)
        query = best // classes
        mask_iou = to_full_precision(last.mask_iou).sigmoid().gather(1, query)
        boxes = scores.new_zeros((*scores.shape, 4)).float()
        masks = torch.zeros((*scores.shape, 0, 0), dtype=torch.bool, device=scores.device)
        columns = (boxes, best % classes, masks, scores.float(), mask_iou.float())
        return [Instances(*row) for row in zip(*columns, strict=True)], query

    def _rasterise(self, maps: Tensor, inside: Tensor) -> Tensor:
        """Rasterise mask logits f32[n,h,w] at the size of bool[n,H,W], which is true in the view: masks bool[n,H,W]."""
        probability = self._upsample(maps[:, None]).sigmoid()
        return (F.interpolate(probability, inside.shape[-2:], mode="bilinear")[:, 0] > 0.5) & inside


def _stages(pairs: Tensor) -> Tensor:
    """Return the stage i64[T,1] of each row of pairs [T,P]."""
    return torch.arange(len(pairs), device=pairs.device)[:, None]


def _split(detections: Instances, image: Tensor, views: Sequence[Tensor]) -> list[Instances]:
    """Return the detections of each view that cover a pixel; image i64[n] rises, masks are padded."""
    index = (detections.boxes[:, 2] > 0).nonzero()[:, 0]
    in_view = image[index, None] == torch.arange(len(views), device=image.device)
    sizes = [(view.shape[-2], view.shape[-1]) for view in views]
    return split_views(detections[index], in_view.sum(0).tolist(), sizes)


def _class_loss(
    logits: Tensor, matches: Match, labels: Tensor, targets: Sequence[Targets], matched: float | Tensor
) -> Tensor:
    """Return the class loss of every query of logits f32[T,B,N,C]; labels i64[K] are those of all instances.

    Matched queries have their instance's weight, the others the background's.
    """
    weights = logits.new_empty(logits.shape[:-1])
    for image, target in enumerate(targets):
        weights[:, image].fill_(boxless_background(target.background))
    wanted = torch.full_like(weights, logits.shape[-1], dtype=torch.int64)
    pairs = _stages(matches.image), matches.image, matches.query
    weights[pairs] = torch.cat([target.class_weight for target in targets])[matches.instance]
    wanted[pairs] = labels[matches.instance]
    return class_loss(logits.flatten(0, 2), wanted.flatten(), weights.flatten(), matched)
