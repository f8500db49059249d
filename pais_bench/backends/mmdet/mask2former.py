"""Build mmdet's Mask2Former with a weight for every instance in its losses.

Kept from mmdet: config, network, matching, random points, inference. Added: the weights of Targets
(_weighted_queries.py) and a mask-IoU branch beside the class branch. At unit weights each stock loss, summed over the
layers, is mmdet's own. The config's padding to 1024 pixels is left out, because a view already has its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from pais_bench.backends.base import FrameworkOptions
from pais_bench.backends.mmdet._config import (
    SMALL_BACKBONE,
    SMALL_CHANNELS,
    Extension,
    build_pretrained,
    compile_features,
)
from pais_bench.backends.mmdet._samples import to_batch
from pais_bench.backends.mmdet._weighted_queries import WeightedQueryHead, rank_queries
from pais_bench.geometry import nonzero_each
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.network import Network
from pais_bench.types import Instances, Keep, Losses, LossNormalizer, Size, Targets

_ATTENTION = {"embed_dims": 32, "num_heads": 4}
_FFN = {"embed_dims": 32, "feedforward_channels": 64}
SMALL: dict[str, Any] = {
    **SMALL_BACKBONE,
    "panoptic_head.in_channels": SMALL_CHANNELS,
    "panoptic_head.feat_channels": 32,
    "panoptic_head.out_channels": 32,
    "panoptic_head.num_queries": 20,
    "panoptic_head.positional_encoding.num_feats": 16,
    "panoptic_head.pixel_decoder.norm_cfg.num_groups": 8,
    "panoptic_head.pixel_decoder.positional_encoding.num_feats": 16,
    "panoptic_head.pixel_decoder.encoder.num_layers": 1,
    "panoptic_head.pixel_decoder.encoder.layer_cfg.self_attn_cfg": _ATTENTION,
    "panoptic_head.pixel_decoder.encoder.layer_cfg.ffn_cfg": _FFN,
    "panoptic_head.transformer_decoder.num_layers": 3,
    "panoptic_head.transformer_decoder.layer_cfg.self_attn_cfg": _ATTENTION,
    "panoptic_head.transformer_decoder.layer_cfg.cross_attn_cfg": _ATTENTION,
    "panoptic_head.transformer_decoder.layer_cfg.ffn_cfg": _FFN,
    "train_cfg.num_points": 1024,
    "test_cfg.max_per_image": 15,
}
"""The settings of a network that learns small images on a CPU."""

SUPPORTED: dict[str, Sequence[Any]] = {
    "type": ("Mask2Former",),
    "panoptic_head.type": ("Mask2FormerHead",),
    "panoptic_head.loss_cls.type": ("CrossEntropyLoss",),
    "panoptic_head.loss_cls.use_sigmoid": (False, None),
    "panoptic_head.loss_mask.type": ("CrossEntropyLoss",),
    "panoptic_head.loss_dice.type": ("DiceLoss",),
    "panoptic_fusion_head.type": ("MaskFormerFusionHead",),
}
"""The modules and losses of mmdet that the weighted ones stand for; None: the config has no such key."""


class Options(FrameworkOptions):
    """Set the network; the defaults are mmdet's Mask2Former R50 for instances."""

    config: str = "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"
    """The model of the config has to be a Mask2Former; overrides are keys of it: panoptic_head.num_queries."""


class Backend(Network):
    """Compute losses and predictions with mmdet's Mask2Former.

    Classes of stuff are learnt like things: a query of theirs has a class and a mask, and no more.
    """

    def __init__(self, num_classes: int, options: Options, stuff: Sequence[int] = (), pretrained: bool = True) -> None:
        super().__init__()
        self.compile_features = options.compile
        self.model = _build(num_classes, options, pretrained)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return class, mask, dice and mask_iou of a batch of views, summed over the layers."""
        ensure_train_mode(self)
        if self.compile_features:
            compile_features(self.model)
        self.model.panoptic_head.normalizer = normalizer
        return self.model.loss(*to_batch(self.model, images, targets, pad_to))

    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return the instances of each view that have a mask, sorted by falling score; restore the mode."""
        return self._predict(images, pad_to, keep)

    def predict_soft(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> list[Instances]:
        """Return what predict does, with soft masks at stride 4 and class probabilities, which keep sees too."""
        return self._predict(images, pad_to, keep, soft=True)

    @torch.no_grad()
    def _predict(
        self, images: Sequence[Tensor], pad_to: Size, keep: Keep | None, soft: bool = False
    ) -> list[Instances]:
        with eval_mode(self):
            if self.compile_features:
                compile_features(self.model)
            batch, samples = to_batch(self.model, images, pad_to=pad_to)
            scores, masks = self.model.panoptic_head.predict(self.model.extract_feat(batch), samples)
        most, padded = self.model.panoptic_fusion_head.test_cfg.get("max_per_image", 100), batch.shape[-2:]
        found = [
            rank_queries(logits, maps, most, (padded[0], padded[1]), (image.shape[-2], image.shape[-1]), soft)
            for logits, maps, image in zip(scores, masks, images, strict=True)
        ]
        found = _select(found, [one.boxes[:, 2] > 0 for one in found])
        return found if keep is None else _select(found, [keep(_unpasted(one)) for one in found])


def stock_settings(num_classes: int) -> dict[str, Any]:
    """Return the settings with which mmdet's own classes build the network."""
    settings: dict[str, Any] = {
        "data_preprocessor.batch_augments": None,
        "panoptic_head.loss_cls.class_weight": [1.0] * num_classes + [0.1],
    }
    for head in ("panoptic_head", "panoptic_fusion_head"):
        settings |= {f"{head}.num_things_classes": num_classes, f"{head}.num_stuff_classes": 0}
    return settings


def _build(num_classes: int, options: Options, pretrained: bool) -> Any:
    extensions = {"panoptic_head": Extension(MODELS, WeightedQueryHead)}
    added_weights = ["panoptic_head.cls_embed.mask_iou."]
    settings = stock_settings(num_classes)
    return build_pretrained(options, SMALL, settings, extensions, SUPPORTED, added_weights, pretrained)


def _unpasted(instances: Instances) -> Instances:
    return replace(instances, masks=instances.masks[:, :0, :0])


def _select(views: Sequence[Instances], wanted: Sequence[Tensor]) -> list[Instances]:
    return [one[index] for one, index in zip(views, nonzero_each(wanted), strict=True)]
