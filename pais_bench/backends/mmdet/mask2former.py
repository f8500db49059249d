"""What is Mask2Former with weights in mmdet? mmdet's own model; here is only how a weight enters its losses.

Kept from mmdet: config, network, matching, random points, inference. Added: the weights of Targets
(_weighted_queries.py) and a mask-IoU branch beside the class branch. At unit weights each stock loss, summed over the
layers, is mmdet's own. The config's padding to 1024 pixels is left out, because a view already has its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pais_bench.asking import enter_training, evaluating
from pais_bench.backends.mmdet._networks import SMALL_BACKBONE, SMALL_CHANNELS, build_pretrained, inputs, mixed
from pais_bench.backends.mmdet._weighted_queries import ClassAndQuality, QualityInstances, WeightedQueries
from pais_bench.config import Frozen
from pais_bench.types import Instances, Targets

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
"""What makes it a network that learns small images on a CPU."""


class Options(Frozen):
    """Set the network; the defaults are mmdet's Mask2Former R50 for instances."""

    config: str = "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"
    """A file below mmdet's own configs, or one of yours; its model has to be a Mask2Former."""
    overrides: dict[str, Any] = {}
    """Keys of the config's model that differ, with dots: {panoptic_head.num_queries: 200}."""
    backbone: Literal["resnet50", "small"] = "resnet50"
    """resnet50 is what the config says; small changes it to one of 1 M parameters for small images on a CPU."""
    weights: Path | None = None
    """State dict of the backbone on disk, torchvision's or mmdet's (ImageNet); None trains from random weights."""
    checkpoint: Path | None = None
    """A checkpoint of mmdet's for the whole network with the same number of classes, to start from."""


class Backend(nn.Module):
    """Offer loss and predict over mmdet's Mask2Former."""

    def __init__(self, classes: int, options: Options) -> None:
        super().__init__()
        things = {"num_things_classes": classes, "num_stuff_classes": 0}
        self.model = build_pretrained(
            options,
            SMALL,
            {
                "data_preprocessor.batch_augments": None,
                "panoptic_head.loss_cls.class_weight": [1.0] * classes + [0.1],
                **{f"{head}.{key}": value for head in _HEADS for key, value in things.items()},
            },
        )
        head = mixed(self.model.panoptic_head, WeightedQueries)
        head.cls_embed.__class__ = ClassAndQuality
        head.cls_embed.add_branch()
        mixed(self.model.panoptic_fusion_head, QualityInstances)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.model.backbone.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses class, mask, dice and quality of a batch of views, summed over the layers."""
        enter_training(self)
        losses: dict[str, Tensor] = self.model.loss(*inputs(self.model, images, targets))
        return losses

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give the instances of each view that have a mask, sorted by falling score; restore the mode."""
        with evaluating(self):
            samples = self.model.predict(*inputs(self.model, images), rescale=False)
            return [_instances(sample.pred_instances) for sample in samples]


_HEADS = ("panoptic_head", "panoptic_fusion_head")


def _instances(found: Any) -> Instances:
    seen = Instances(
        boxes=found.bboxes.float(),
        labels=found.labels,
        masks=found.masks,
        scores=found.scores.float(),
        quality=found.quality.float(),
    )
    seen = seen[seen.masks.flatten(1).any(1)]
    return seen[seen.scores.argsort(descending=True, stable=True)]
