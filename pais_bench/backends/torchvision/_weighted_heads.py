"""Weight torchvision's RoI losses by the instance that each region is matched to, and predict the IoU of each mask.

At unit weights each loss is torchvision's own. The regions of all views are worked on together: where a view's lie
among them is known to the host from what was sampled, so that it need not ask the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, project_masks_on_boxes
from torchvision.ops import box_iou

from pais_bench.backends.base import RoIOptions
from pais_bench.backends.torchvision._boxes import FullPrecisionBoxCoder, clip_to_views, suppress
from pais_bench.backends.torchvision._sampling import SeededSampler
from pais_bench.backends.torchvision._supervision import Supervision, offset_owners
from pais_bench.geometry import crop_pixel_weights
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import area_outside_roi, background_weights, class_loss, mask_losses
from pais_bench.types import Instances, Targets


class Regions(NamedTuple):
    """Hold the sampled regions of a batch.

    boxes f32[n,4] | sizes: how many a view has | labels i64[n], 0: background | positive i64[p]: which of them are
    positive | positives: how many a view has | owner i64[p]: the instance of each positive, counted in its view |
    owner_in_batch i64[p]: counted over all views.
    """

    boxes: Tensor
    sizes: list[int]
    labels: Tensor
    positive: Tensor
    positives: list[int]
    owner: Tensor
    owner_in_batch: Tensor


class WeightedRoIHeads(RoIHeads):
    """Weight the class, box and mask losses of each region by its instance, and predict the IoU of each mask.

    mask_shift: pixels by which the crops of masks, and so of pixel weights, show what lies below and to the right.
    """

    def __init__(self, *args, mask_iou_head: nn.Module, roi: RoIOptions, mask_shift: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.box_coder: FullPrecisionBoxCoder = FullPrecisionBoxCoder((10.0, 10.0, 5.0, 5.0))
        self.fg_bg_sampler = SeededSampler(kwargs["batch_size_per_image"], kwargs["positive_fraction"])
        self.mask_iou_head, self.roi, self.mask_shift = mask_iou_head, roi, mask_shift

    def losses(self, features, proposals, image_shapes, supervision: Supervision) -> dict[str, Tensor]:
        """Return class, box, mask and mask_iou of the regions that are sampled from proposals f32[n,4] of each view."""
        targets, normalizer = supervision
        regions = self.select_training_samples(proposals, targets)
        boxes = list(regions.boxes.split(regions.sizes))
        logits, box = self._box_maps(features, boxes, image_shapes)
        losses = self._box_losses(logits, box, regions, boxes, supervision)

        rois = regions.boxes[regions.positive]
        rois_of_view, owners = list(rois.split(regions.positives)), regions.owner.split(regions.positives)
        classes = regions.labels[regions.positive]
        mask_features, maps = self._mask_maps(features, rois_of_view, image_shapes)
        own_class = [logits[torch.arange(len(classes), device=classes.device), classes] for logits in maps]
        masks, size = [target.instances.masks for target in targets], own_class[0].shape[-1]
        crops = torch.cat(
            [project_masks_on_boxes(m, r, o, size) for m, r, o in zip(masks, rois_of_view, owners, strict=True)]
        )
        area = torch.cat([mask.flatten(1).sum(1).to(rois) for mask in masks])[regions.owner_in_batch]
        losses["mask"], mask_iou = mask_losses(
            own_class,
            crops,
            torch.cat([target.mask_weight for target in targets])[regions.owner_in_batch],
            self.roi.boundary_weight,
            area_outside_roi(area, rois, crops),
            lambda probability: self.mask_iou_head(mask_features, probability),
            normalizer(len(classes)),
            crop_pixel_weights(targets, owners, rois_of_view, (size, size), self.mask_shift),
        )
        losses["mask_iou"] = self.roi.mask_iou_weight * mask_iou
        return losses

    def detect(self, features, proposals, image_shapes, soft: bool = False) -> tuple[Instances, Tensor, list[int]]:
        """Return the detections of all views, with masks bool[n,0,0]; mask probabilities f32[n,28,28]; counts a view.

        At most detections_per_img a view, sorted by falling score. soft: whether they have class_probs.
        """
        logits, deltas = self._box_maps(features, proposals, image_shapes)
        (boxes, scores, labels, *probs), counts = self._suppressed(logits, deltas, proposals, image_shapes, soft)
        mask_features, (maps, *_) = self._mask_maps(features, list(boxes.split(counts)), image_shapes)
        own_class = maps[torch.arange(len(labels), device=labels.device), labels]
        masks = to_full_precision(own_class).sigmoid()
        mask_iou = to_full_precision(self.mask_iou_head(mask_features, masks)).sigmoid()
        unpasted = masks.new_empty((len(masks), 0, 0), dtype=torch.bool)
        found = Instances(boxes.float(), labels - 1, unpasted, scores.float(), mask_iou.float())
        return replace(found, class_probs=probs[0].float()) if soft else found, masks, counts

    def score(self, features, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return class probabilities f32[n,C+1], background first, and boxes f32[n,C,4] of each class."""
        logits, deltas = self._box_maps(features, [boxes], [size])
        return to_full_precision(logits).softmax(1), self.box_coder.decode(deltas, [boxes])[:, 1:]

    def select_training_samples(self, proposals: Sequence[Tensor], targets: Sequence[Targets]) -> Regions:
        """Match proposals and the instances' own boxes to instances, and sample from them."""
        boxes, matched, labels = [], [], []
        for proposed, target in zip(proposals, targets, strict=True):
            instances = target.instances
            candidates = torch.cat((proposed, instances.boxes.to(proposed)))
            if len(instances):
                owner = self.proposal_matcher(box_iou(instances.boxes.to(proposed), candidates))
                label = (instances.labels + 1)[owner.clamp(min=0)] * (owner >= 0)
            else:
                owner = label = torch.zeros(len(candidates), dtype=torch.int64, device=candidates.device)
            boxes.append(candidates)
            matched.append(owner)
            labels.append(label)
        sample = self.fg_bg_sampler(labels, [target.seed for target in targets])
        sampled = torch.cat((sample.positive, sample.negative)).sort().values
        return Regions(
            torch.cat(boxes)[sampled],
            [p + n for p, n in zip(sample.positives, sample.negatives, strict=True)],
            torch.cat(labels)[sampled],
            torch.searchsorted(sampled, sample.positive),
            sample.positives,
            torch.cat(matched)[sample.positive],
            offset_owners(matched, targets)[sample.positive],
        )

    def _box_losses(self, logits, box, regions: Regions, boxes, supervision: Supervision) -> dict[str, Tensor]:
        """Return the class and box losses of the sampled regions, whose boxes f32[n,4] are given by view."""
        targets, positive, owner = supervision.targets, regions.positive, regions.owner_in_batch
        weight = torch.cat(
            [background_weights(t.background, one).to(t.class_weight) for t, one in zip(targets, boxes, strict=True)]
        )
        weight = weight.index_copy(0, positive, torch.cat([t.class_weight for t in targets])[owner])
        own_class = box.reshape(len(box), box.shape[1] // 4, 4)[positive, regions.labels[positive]]
        expected = self.box_coder.encode_single(
            torch.cat([t.instances.boxes for t in targets])[owner], regions.boxes[positive]
        )
        distance = F.smooth_l1_loss(to_full_precision(own_class), expected, beta=1 / 9, reduction="none").sum(1)
        box_weight = torch.cat([target.box_weight for target in targets])[owner]
        normalizer = supervision.normalizer(len(regions.labels))
        return {
            "class": class_loss(logits, regions.labels, weight, self.roi.focal_gamma, normalizer),
            "box": (distance * box_weight).sum() / normalizer,
        }

    def _suppressed(self, logits, deltas, proposals, image_shapes, soft: bool) -> tuple[list[Tensor], list[int]]:
        """Return boxes f32[n,4], scores f32[n] and labels i64[n] 1..C of all views, and how many a view has.

        If soft, the probabilities f32[n,C] of all classes come after the labels. The host waits once a view, for its
        suppression, and twice in all.
        """
        numbers = [len(one) for one in proposals]
        regions = self.box_coder.decode(deltas, proposals)[:, 1:]
        clip_to_views(regions.split(numbers), image_shapes)
        scores = to_full_precision(logits).softmax(1)[:, 1:]
        extent = regions[..., 2:] - regions[..., :2]
        found = (scores > self.score_thresh) & (extent >= 1e-2).all(-1)
        counts = torch.stack([one.sum() for one in found.split(numbers)]).tolist()
        region, label = found.nonzero().unbind(1)
        columns = [regions[region, label], scores[region, label], label + 1, *([scores[region]] if soft else [])]
        kept = []
        for view in zip(*(column.split(counts) for column in columns), strict=True):
            boxes, scores, labels, *_ = view
            best = suppress(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
            kept.append([column[best] for column in view])
        return [torch.cat(values) for values in zip(*kept, strict=True)], [len(one) for one, *_ in kept]

    def _box_maps(self, features, boxes, image_shapes) -> tuple[Tensor, Tensor]:
        """Return class logits [n,C+1] and deltas [n,4(C+1)] of the boxes f32[n_i,4] of each view."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        return logits, deltas

    def _mask_maps(self, features, boxes, image_shapes) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the mask features and the logits of every map that is trained, the one that predicts first."""
        mask_features = self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))
        maps = self.mask_predictor(mask_features)
        return mask_features, maps if isinstance(maps, tuple) else (maps,)
