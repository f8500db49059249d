"""Weight detectron2's region-proposal and RoI losses by the instance that each anchor or region is matched to.

At unit weights each loss is detectron2's own. A region proposal knows no class, so its losses follow box_weight, and
background where it is unmatched. detectron2 itself gives a sampled region every field of its instance that begins with
gt_, and so the weights of the heads; what belongs to an image or a batch, WeightedRCNN.supervise sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY, GeneralizedRCNN
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Boxes, ImageList
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.geometry import crop_pixel_weights
from pais_bench.layers.mask_iou_head import MaskIoUHead
from pais_bench.layers.noise_tolerant_head import NoiseTolerantPredictor
from pais_bench.layers.padding import padding_image
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import (
    area_outside_roi,
    background_weights,
    boxless_background,
    class_loss,
    mask_losses,
    matched_values,
)
from pais_bench.layers.seeding import seed_sampling
from pais_bench.types import LossNormalizer, Targets


@META_ARCH_REGISTRY.register()
class WeightedRCNN(GeneralizedRCNN):
    """Hand the targets of a batch to the heads, and pad views to the size of the step."""

    def supervise(self, targets: Sequence[Targets], normalizer: LossNormalizer) -> None:
        """Set the targets and the normaliser of the next forward pass in training mode."""
        rois = self.roi_heads
        self.proposal_generator.targets = rois.targets = targets
        rois.mask_head.targets = targets
        rois.box_predictor.normalizer = rois.mask_head.normalizer = normalizer

    def preprocess_image(self, batched_inputs):
        """Return detectron2's own ImageList, padded to at least the `pad_to` (H, W) of the inputs."""
        images = [image["image"] for image in batched_inputs]
        padding = [{"image": image} for image in padding_image(images, batched_inputs[0]["pad_to"])]
        batch = super().preprocess_image([*batched_inputs, *padding])
        return ImageList(batch.tensor[: len(images)], batch.image_sizes[: len(images)])


class RecordingMatcher(Matcher):
    """Keep the matches i64[anchors] of the last image, because RPN returns the boxes of the matched instances alone."""

    def __call__(self, match_quality_matrix):
        """Return detectron2's own matches and labels."""
        self.matches, labels = super().__call__(match_quality_matrix)
        return self.matches, labels


@PROPOSAL_GENERATOR_REGISTRY.register()
class WeightedRPN(RPN):
    """Weight both losses of an anchor by the box_weight of its instance, or by the background where it has none."""

    @classmethod
    def from_config(cls, cfg, input_shape):
        """Return detectron2's own arguments, with a matcher that records."""
        rpn = cfg.MODEL.RPN
        matcher = RecordingMatcher(rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True)
        return super().from_config(cfg, input_shape) | {"anchor_matcher": matcher}

    @torch.no_grad()
    def label_and_sample_anchors(self, anchors, gt_instances):
        """Label and sample as detectron2 does, each image from its seed; keep the anchors' weights for `losses`."""
        labels, boxes, weights = [], [], []
        for instances, target in zip(gt_instances, self.targets, strict=True):
            seed_sampling(instances.gt_boxes.device, target.seed)
            (label,), (box,) = super().label_and_sample_anchors(anchors, [instances])
            weight = matched_values(target.box_weight, self.anchor_matcher.matches)
            labels.append(label)
            boxes.append(box)
            weights.append(torch.where(label == 1, weight, boxless_background(target.background)))
        self.anchor_weight = torch.stack(weights)
        return labels, boxes

    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """Return loss_rpn_cls and loss_rpn_loc of the sampled anchors, divided by the same number in every batch."""
        labels, anchor_boxes = torch.stack(gt_labels), Boxes.cat(anchors).tensor
        positive, sampled = ((labels >= least).nonzero(as_tuple=True) for least in (1, 0))
        deltas = self.box2box_transform.get_deltas(anchor_boxes[positive[1]], torch.stack(gt_boxes)[positive])
        predicted = to_full_precision(torch.cat(pred_anchor_deltas, 1)[positive])
        distance = smooth_l1_loss(predicted, deltas, self.smooth_l1_beta).sum(1)
        logits = to_full_precision(torch.cat(pred_objectness_logits, 1)[sampled])
        rows = F.binary_cross_entropy_with_logits(logits, labels[sampled].float(), reduction="none")
        normalizer = self.batch_size_per_image * len(labels)
        losses = {
            "loss_rpn_cls": (rows * self.anchor_weight[sampled]).sum() / normalizer,
            "loss_rpn_loc": (distance * self.anchor_weight[positive]).sum() / normalizer,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


class WeightedPredictor(FastRCNNOutputLayers):
    """Weight the class and box losses of each region by its instance."""

    soft = False  # Backend sets it for a prediction

    @configurable
    def __init__(self, input_shape, *, focal_gamma: float, **kwargs) -> None:
        super().__init__(input_shape, **kwargs)
        self.focal_gamma = focal_gamma

    @classmethod
    def from_config(cls, cfg, input_shape):
        """Return detectron2's own arguments and focal_gamma."""
        return super().from_config(cfg, input_shape) | {"focal_gamma": cfg.MODEL.PAIS.FOCAL_GAMMA}

    def forward(self, x):
        """Return detectron2's own class logits and deltas, in full precision."""
        logits, deltas = super().forward(x)
        return to_full_precision(logits), to_full_precision(deltas)

    def inference(self, predictions, proposals):
        """Return detectron2's own detections and their regions; if soft, the detections have class_probs f32[n,C]."""
        found, regions = super().inference(predictions, proposals)
        if not self.soft:
            return found, regions
        for image, region, probs in zip(found, regions, self.predict_probs(predictions, proposals), strict=True):
            image.class_probs = probs[region, :-1]  # the background is last
        return found, regions

    def losses(self, predictions, proposals):
        """Return loss_cls and loss_box_reg of the sampled regions."""
        logits, box = predictions
        labels = torch.cat([image.gt_classes for image in proposals])
        positive = (labels < self.num_classes).nonzero()[:, 0]
        rois = torch.cat([image.proposal_boxes.tensor for image in proposals])[positive]
        # Regions of an image without instances have no gt_boxes; none of them is positive.
        matched = [image.gt_boxes if image.has("gt_boxes") else image.proposal_boxes for image in proposals]
        target = self.box2box_transform.get_deltas(rois, torch.cat([boxes.tensor for boxes in matched])[positive])
        own_class = _of_class(box.reshape(len(box), -1, 4)[positive], labels[positive])
        distance = smooth_l1_loss(own_class, target, self.smooth_l1_beta).sum(1)
        normalizer = self.normalizer(len(labels))
        losses = {
            "loss_cls": class_loss(logits, labels, _gather(proposals, "class_weight"), self.focal_gamma, normalizer),
            "loss_box_reg": (distance * _gather(proposals, "gt_box_weight")[positive]).sum() / normalizer,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


@ROI_HEADS_REGISTRY.register()
class WeightedROIHeads(StandardROIHeads):
    """Sample each image's regions from its seed, with the weight of their class loss; score given boxes."""

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        box = super()._init_box_head(cfg, input_shape)
        stock = box["box_predictor"]
        with torch.random.fork_rng(devices=[]):  # so that a seed still initialises the network as detectron2 does
            predictor = WeightedPredictor(cfg, box["box_head"].output_shape)
        predictor.load_state_dict(stock.state_dict())
        return box | {"box_predictor": predictor}

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals, targets):
        """Label and sample as detectron2 does; regions have the field class_weight f32[n]."""
        sampled = []
        for image, instances, target in zip(proposals, targets, self.targets, strict=True):
            seed_sampling(instances.gt_boxes.device, target.seed)
            (regions,) = super().label_and_sample_proposals([image], [instances])
            background = background_weights(target.background, regions.proposal_boxes.tensor)
            weight = _gather([regions], "gt_class_weight")
            regions.class_weight = torch.where(regions.gt_classes < self.num_classes, weight, background)
            sampled.append(regions)
        return sampled

    def score(self, features, boxes):
        """Return class probabilities f32[n,C+1], background first, and refined boxes f32[n,C,4] of a view's boxes."""
        pooled = self.box_pooler([features[name] for name in self.box_in_features], [Boxes(boxes)])
        logits, deltas = self.box_predictor(self.box_head(pooled))
        refined = self.box_predictor.box2box_transform.apply_deltas(deltas, boxes)
        refined = refined.view(-1, refined.shape[1] // 4, 4).expand(-1, self.num_classes, -1)
        return logits.softmax(1).roll(1, 1), refined  # detectron2's background is last


@ROI_MASK_HEAD_REGISTRY.register()
class WeightedMaskHead(MaskRCNNConvUpsampleHead):
    """Weight the mask loss of each region by its instance, and predict the IoU of its mask."""

    @configurable
    def __init__(
        self, input_shape, *, boundary_weight: float, mask_iou_channels: int, mask_iou_weight: float, **kwargs
    ) -> None:
        super().__init__(input_shape, **kwargs)
        self.boundary_weight, self.mask_iou_weight = boundary_weight, mask_iou_weight
        self.mask_iou_head = MaskIoUHead(input_shape.channels, mask_iou_channels)

    @classmethod
    def from_config(cls, cfg, input_shape):
        """Return detectron2's own arguments, and those of the options."""
        own = cfg.MODEL.PAIS
        return super().from_config(cfg, input_shape) | {
            "boundary_weight": own.BOUNDARY_WEIGHT,
            "mask_iou_channels": own.MASK_IOU_CHANNELS,
            "mask_iou_weight": own.MASK_IOU_WEIGHT,
        }

    def layers(self, x):
        """Return the mask logits f32[n,C,28,28], or a tuple of them where more than one map is trained.

        They are in full precision, in which detectron2 then pastes them: half of it would move their pixels.
        """
        for layer in self:
            if layer is not self.mask_iou_head:  # a child of this nn.Sequential like its layers
                x = layer(x)
        return tuple(to_full_precision(maps) for maps in x) if isinstance(x, tuple) else to_full_precision(x)

    def forward(self, x, instances):
        """Return loss_mask and loss_mask_iou; in eval mode the instances, with pred_masks and mask_iou."""
        return self._losses(x, instances) if self.training else self._results(x, instances)

    def _losses(self, features, regions):
        maps = self.layers(features)
        labels = torch.cat([image.gt_classes for image in regions])
        own_class = [_of_class(logits, labels) for logits in (maps if isinstance(maps, tuple) else (maps,))]
        size = own_class[0].shape[-1]
        crops = [image.gt_masks.crop_and_resize(image.proposal_boxes.tensor, size) for image in regions if len(image)]
        target = torch.cat([*crops, own_class[0].new_zeros((0, size, size))]).to(own_class[0])
        rois = torch.cat([image.proposal_boxes.tensor for image in regions])
        mask, mask_iou = mask_losses(
            own_class,
            target,
            _gather(regions, "gt_mask_weight"),
            self.boundary_weight,
            area_outside_roi(_gather(regions, "gt_area"), rois, target),
            lambda probability: self.mask_iou_head(features, probability),
            self.normalizer(len(labels)),
            crop_pixel_weights(
                self.targets,
                (_gather([image], "gt_index").long() for image in regions),
                (image.proposal_boxes.tensor for image in regions),
                (size, size),
            ),
        )
        return {"loss_mask": mask * self.loss_weight, "loss_mask_iou": mask_iou * self.mask_iou_weight}

    def _results(self, features, instances):
        mask_rcnn_inference(self.layers(features), instances)
        masks = torch.cat([image.pred_masks for image in instances])[:, 0]
        mask_iou = self.mask_iou_head(features, masks).sigmoid().split([len(image) for image in instances])
        for image, values in zip(instances, mask_iou, strict=True):
            image.mask_iou = values
        return instances


@ROI_MASK_HEAD_REGISTRY.register()
class NoiseTolerantMaskHead(WeightedMaskHead):
    """Predict a fine and a coarse map in place of the upsampling and the logits [Noisy Boundaries, CVPR 2022]."""

    @configurable
    def __init__(self, *, num_classes: int, conv_dims: Sequence[int], **kwargs) -> None:
        super().__init__(num_classes=num_classes, conv_dims=conv_dims, **kwargs)
        self.deconv, self.deconv_relu = nn.Identity(), nn.Identity()
        self.predictor = NoiseTolerantPredictor(conv_dims[-1], conv_dims[-1], num_classes)


def _of_class(values: Tensor, labels: Tensor) -> Tensor:
    """Return the values [n,...] of each region's class from values [n,C,...], or from [n,1,...] of every class."""
    return values[torch.arange(len(labels), device=labels.device), labels if values.shape[1] > 1 else 0]


def _gather(regions: Sequence, name: str) -> Tensor:
    """Return a field f32[n] of the regions of all images; 0 in an image without instances, which has no gt_ fields."""
    return torch.cat(
        [image.get(name) if image.has(name) else image.proposal_boxes.tensor.new_zeros(len(image)) for image in regions]
    )
