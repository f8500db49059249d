"""Weight torchvision's region-proposal losses by the instance that each anchor is matched to.

At unit weights each loss is torchvision's own. A region proposal knows no class, so its losses follow box_weight, and
background where it is unmatched. All views are worked on together, and in full precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import box_iou

from pais_bench.backends.torchvision._boxes import AnchorMatcher, FullPrecisionBoxCoder, clip_to_views, suppress
from pais_bench.backends.torchvision._sampling import SeededSampler
from pais_bench.backends.torchvision._supervision import Supervision, offset_owners
from pais_bench.layers.losses import weighted_mean
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import boxless_background


class WeightedRPN(RegionProposalNetwork):
    """Weight both losses of an anchor by the box_weight of its instance, or by the background where it has none."""

    def __init__(self, *args, batch_size_per_image: int, positive_fraction: float, **kwargs) -> None:
        super().__init__(
            *args, batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction, **kwargs
        )
        self.box_coder: FullPrecisionBoxCoder = FullPrecisionBoxCoder((1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = AnchorMatcher(
            kwargs["fg_iou_thresh"], kwargs["bg_iou_thresh"], allow_low_quality_matches=True
        )
        self.fg_bg_sampler = SeededSampler(batch_size_per_image, positive_fraction)

    def forward(self, images: ImageList, features: dict[str, Tensor], supervision: Supervision | None = None):
        """Return (proposals f32[n,4] of each view, losses), as torchvision's own."""
        levels = list(features.values())
        by_level, deltas_by_level = self.head(levels)
        anchors = self.anchor_generator(images, levels)[0]
        counts = [level[0].numel() for level in by_level]
        objectness, deltas = concat_box_prediction_layers(by_level, deltas_by_level)
        views = len(images.image_sizes)
        objectness = to_full_precision(objectness).reshape(views, -1)
        deltas = to_full_precision(deltas).reshape(views, -1, 4)
        proposals = self._proposals(anchors, objectness.detach(), deltas.detach(), counts, images.image_sizes)
        return proposals, {} if supervision is None else self._losses(anchors, objectness, deltas, supervision)

    def _proposals(
        self, anchors: Tensor, objectness: Tensor, deltas: Tensor, counts: list[int], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Return each view's proposals f32[n,4]: the best anchors of each level, decoded, clipped and suppressed.

        Only the best anchors are decoded. Proposals without extent are set to nothing, which suppresses nothing, and
        leave at the end: the host waits once a view, for its suppression, and twice in all.
        """
        best = self._get_top_n_idx(objectness, counts)
        level = torch.cat([torch.full((n,), i, device=best.device) for i, n in enumerate(counts)])[best]
        chosen = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        regions = self.box_coder.decode_single(chosen.flatten(0, 1), anchors[best.flatten()]).view_as(chosen)
        clip_to_views(regions, sizes)
        probability = objectness.gather(1, best).sigmoid()
        extent = regions[..., 2:] - regions[..., :2]
        valid = (extent >= self.min_size).all(-1) & (probability >= self.score_thresh)
        regions = torch.where(valid[..., None], regions, 0.0)
        probability = torch.where(valid, probability, -1.0)
        kept = [
            suppress(*view, self.nms_thresh)[: self.post_nms_top_n()]
            for view in zip(regions, probability, level, strict=True)
        ]
        numbers = torch.stack([mask[index].sum() for mask, index in zip(valid, kept, strict=True)]).tolist()
        return [view[index[:number]] for view, index, number in zip(regions, kept, numbers, strict=True)]

    def _losses(
        self, anchors: Tensor, objectness: Tensor, deltas: Tensor, supervision: Supervision
    ) -> dict[str, Tensor]:
        """Return the objectness and box losses of the sampled anchors."""
        targets = supervision.targets
        matched = [self._match(target.instances.boxes, anchors) for target in targets]
        sample = self.fg_bg_sampler([index.clamp(max=0) + 1 for index in matched], [target.seed for target in targets])
        positive, normalizer = sample.positive, supervision.normalizer(len(sample.positive) + len(sample.negative))
        owner = offset_owners(matched, targets)[positive]
        boxes = torch.cat([target.instances.boxes for target in targets])[owner]
        weight = torch.cat([target.box_weight for target in targets])[owner]
        expected = self.box_coder.encode_single(boxes, anchors[positive % len(anchors)])
        distance = F.smooth_l1_loss(deltas.flatten(0, 1)[positive], expected, beta=1 / 9, reduction="none")
        unmatched = [
            weight.new_full((number,), boxless_background(target.background))
            for number, target in zip(sample.negatives, targets, strict=True)
        ]
        logits = objectness.flatten()[torch.cat((positive, sample.negative))]
        labels = torch.cat((torch.ones_like(positive), torch.zeros_like(sample.negative))).to(logits)
        rows = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return {
            "loss_objectness": weighted_mean(rows, torch.cat((weight, *unmatched)), normalizer),
            "loss_rpn_box_reg": (distance.sum(1) * weight).sum() / normalizer,
        }

    def _match(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Return the matched index i64[n] of each anchor: -1 where there is none, -2 where it is not to be used."""
        if len(boxes) == 0:
            return torch.full((len(anchors),), self.proposal_matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        matched: Tensor = self.proposal_matcher(box_iou(boxes, anchors))
        return matched
