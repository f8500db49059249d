"""Build detectron2's Mask R-CNN with a weight for every instance in its losses.

Kept from detectron2: config, network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted_heads.py), a mask-IoU head, and the options that single baselines set. At unit weights each stock loss is
detectron2's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, ROIMasks
from detectron2.structures import Instances as DetectronInstances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from pais_bench.backends.base import FrameworkOptions, RoIOptions
from pais_bench.backends.detectron2._checkpoint import load_backbone, load_checkpoint
from pais_bench.backends.detectron2._config import weighted_config
from pais_bench.errors import BenchError
from pais_bench.layers.compilation import compile_once
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.network import Network
from pais_bench.types import BoxScorer, InstanceMaps, Instances, Keep, Losses, LossNormalizer, Size, Targets

# detectron2 calls it without the argument that torch asks for; nobody who trains can act on that.
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming")

TERMS = {
    "loss_rpn_cls": "objectness",
    "loss_rpn_loc": "proposal_box",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_mask_iou": "mask_iou",
}


class Options(RoIOptions, FrameworkOptions):
    """Set the network; the defaults are detectron2's Mask R-CNN R50-FPN."""

    config: str = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    """The model of the config has to be a Mask R-CNN of StandardROIHeads; overrides: MODEL.RESNETS.DEPTH."""


class Backend(Network):
    """Compute losses and predictions with detectron2's Mask R-CNN."""

    def __init__(self, num_classes: int, options: Options, pretrained: bool = True) -> None:
        super().__init__()
        config = weighted_config(num_classes, options)
        self.bgr, self.compile_backbone = config.INPUT.FORMAT == "BGR", options.compile
        try:
            self.model = build_model(config)
        except (AssertionError, KeyError, ValueError) as error:
            raise BenchError(
                f"config {options.config}: detectron2 refuses it ({error}); look at 'overrides'"
            ) from error
        if options.pretrained_backbone and pretrained:
            load_backbone(self.model, options.pretrained_backbone)
        if options.checkpoint and pretrained:
            load_checkpoint(self.model, options.checkpoint, _added_layers(options))
        self.to(memory_format=torch.channels_last)  # takes less time; detectron2's operators read any layout

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.bottom_up.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return objectness, proposal_box, class, box, mask and mask_iou of a batch of views."""
        ensure_train_mode(self)
        self._compile()
        inputs = [
            image | {"instances": detectron_instances(target)}
            for image, target in zip(self.inputs(images, pad_to), targets, strict=True)
        ]
        self.model.supervise(targets, normalizer)
        try:
            with EventStorage():  # detectron2 has to log into one; nothing reads it
                losses = self.model(inputs)
        except FloatingPointError:  # of proposals that are not finite: the trainer tells step, images and remedy
            for _ in ("box head", "mask head"):
                normalizer(0)  # as both would have: other ranks and micro-batches wait for it
            total = torch.stack([parameter.sum() for parameter in self.parameters()]).sum()
            losses = dict.fromkeys(TERMS, total * math.nan)
        return {term: losses[name] for name, term in TERMS.items()}

    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return at most TEST.DETECTIONS_PER_IMAGE instances a view, sorted by falling score; restore the mode."""
        return self._predict(images, pad_to, keep)[0]

    def predict_soft(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> list[Instances]:
        """Return what predict does, with soft masks on the boxes and class probabilities, which keep sees too."""
        return self._predict(images, pad_to, keep, soft=True)[0]

    def predict_with_scorers(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> tuple[list[Instances], list[BoxScorer]]:
        """Return what predict does, and each view's scorer of boxes, from the same pass of the backbone."""
        detections, features = self._predict(images, pad_to, keep)
        of_view = [{name: level[view : view + 1] for name, level in features.items()} for view in range(len(images))]
        return detections, [partial(self._score, one) for one in of_view]

    @torch.no_grad()
    def _predict(
        self, images: Sequence[Tensor], pad_to: Size, keep: Keep | None, soft: bool = False
    ) -> tuple[list[Instances], Mapping[str, Tensor]]:
        with eval_mode(self):
            self._compile()
            batch = self.model.preprocess_image(self.inputs(images, pad_to))
            features = self.model.backbone(batch.tensor)
            self.model.roi_heads.box_predictor.soft = soft
            proposals, _ = self.model.proposal_generator(batch, features, None)
            results, _ = self.model.roi_heads(batch, features, proposals, None)
            return [_paste(result, keep, soft) for result in results], features

    @torch.no_grad()
    def _score(self, features: Mapping[str, Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        with eval_mode(self):
            scored: tuple[Tensor, Tensor] = self.model.roi_heads.score(features, boxes)
            return scored

    def _compile(self) -> None:
        if self.compile_backbone:
            compile_once(self.model.backbone)

    def inputs(self, images: Sequence[Tensor], pad_to: Size) -> list[dict[str, Any]]:
        """Return the views as detectron2's own loading does: 0..255, channels in the order that the config names."""
        return [{"image": 255 * (image.flip(0) if self.bgr else image), "pad_to": pad_to} for image in images]


def detectron_instances(target: Targets) -> DetectronInstances:
    """Return an image's instances with the fields that detectron2 hands to the sampled regions."""
    instances = target.instances
    return DetectronInstances(
        tuple(instances.masks.shape[-2:]),
        gt_boxes=Boxes(instances.boxes),
        gt_classes=instances.labels,
        gt_masks=BitMasks(instances.masks),
        gt_area=instances.masks.flatten(1).sum(1).float(),
        gt_class_weight=target.class_weight,
        gt_mask_weight=target.mask_weight,
        gt_box_weight=target.box_weight,
        gt_index=torch.arange(len(instances), device=instances.labels.device),
    )


def _added_layers(options: Options) -> list[str]:
    """Return the name prefixes of the parameters that only this network or only detectron2's own has."""
    names = ["mask_iou_head."] + (["deconv.", "predictor."] if options.mask_head == "noise_tolerant" else [])
    return [f"roi_heads.mask_head.{name}" for name in names]


def _paste(result: DetectronInstances, keep: Keep | None, soft: bool) -> Instances:
    """Return the instances of a view as detectron2's own postprocessing does, without those that keep drops.

    The view has the size that the network saw, so that no box is scaled. soft: whether they have soft predictions.
    """
    probability = result.pred_masks[:, 0]
    found = Instances(
        boxes=result.pred_boxes.tensor.float(),
        labels=result.pred_classes,
        masks=torch.zeros_like(probability[:, :0, :0], dtype=torch.bool),
        scores=result.scores.float(),
        mask_iou=result.mask_iou.float(),
    )
    if soft:
        maps = InstanceMaps(probability.float(), found.boxes, torch.eye(3, dtype=torch.float64))
        found = replace(found, soft_masks=maps, class_probs=result.class_probs.float())
    wanted = result.pred_boxes.nonempty() if keep is None else result.pred_boxes.nonempty() & keep(found)
    index = wanted.nonzero()[:, 0]
    found = found[index]
    masks = ROIMasks(probability[index]).to_bitmasks(Boxes(found.boxes), *result.image_size).tensor
    return replace(found, masks=masks)
