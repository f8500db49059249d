"""Read a config of detectron2 and change it to what an adapter's options describe."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import detectron2
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem

from pais_bench.backends.detectron2._weighted_heads import (
    NoiseTolerantMaskHead,
    WeightedMaskHead,
    WeightedRCNN,
    WeightedROIHeads,
    WeightedRPN,
)
from pais_bench.errors import BenchError

if TYPE_CHECKING:
    from pais_bench.backends.detectron2.mask_rcnn import Options

SHIPPED = Path(detectron2.__file__).parent / "model_zoo" / "configs"

SUPPORTED: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.MASK_ON": True,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
}
"""The modules and losses of detectron2 that the weighted ones stand for."""

RANDOM_BACKBONE: dict[str, Any] = {"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0}
"""Without weights nothing is frozen and batch norm learns: a random network behind fixed statistics diverges."""


@BACKBONE_REGISTRY.register()
def pais_bench_small_fpn(cfg, input_shape):
    """Build a ResNet-18 of a quarter of the usual width, 0.7 M parameters; detectron2's own builder makes none."""
    norm, names = cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.OUT_FEATURES
    stages = [
        ResNet.make_stage(
            BasicBlock,
            2,
            in_channels=before,
            out_channels=width,
            stride_per_block=[1 + (before != width), 1],
            norm=norm,
        )
        for before, width in zip((16, 16, 32, 64), (16, 32, 64, 128), strict=True)
    ]
    body = ResNet(BasicStem(input_shape.channels, 16, norm), stages, out_features=names)
    body.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    return FPN(body, cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())


SMALL: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": pais_bench_small_fpn.__name__,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [32], [64], [128], [256]],
    "MODEL.RPN.CONV_DIMS": [32],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 64,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 200,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 200,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 100,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 50,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 48,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.5,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 128,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 1,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 1,
    "TEST.DETECTIONS_PER_IMAGE": 15,
}
"""A network that learns small images on a CPU, like torchvision/mask_rcnn's small one in the demo."""


def weighted_config(num_classes: int, options: Options) -> CfgNode:
    """Return the config of the network with weights: stock_config with the modules of _weighted_heads.py.

    Raises BenchError where the config names a module or loss that these cannot stand for.
    """
    config = stock_config(num_classes, options)
    for key, supported in SUPPORTED.items():
        if (value := attrgetter(key)(config)) != supported:
            raise BenchError(
                f"config {options.config}: {key} is {value!r}, which has no weights here; set it to {supported!r} in "
                f"'overrides', or take another config"
            )
    mask_head = NoiseTolerantMaskHead if options.mask_head == "noise_tolerant" else WeightedMaskHead
    config.MODEL.META_ARCHITECTURE = WeightedRCNN.__name__
    config.MODEL.PROPOSAL_GENERATOR.NAME = WeightedRPN.__name__
    config.MODEL.ROI_HEADS.NAME = WeightedROIHeads.__name__
    config.MODEL.ROI_MASK_HEAD.NAME = mask_head.__name__
    config.MODEL.PAIS = CfgNode(
        {
            "FOCAL_GAMMA": options.focal_gamma,
            "BOUNDARY_WEIGHT": options.boundary_weight,
            "MASK_IOU_CHANNELS": options.mask_iou_channels,
            "MASK_IOU_WEIGHT": options.mask_iou_weight,
        }
    )
    return config


def stock_config(num_classes: int, options: Options) -> CfgNode:
    """Return the config that the options describe, as detectron2 itself builds it.

    Raises BenchError where there is no such file, or detectron2 refuses a key or value of `overrides`.
    """
    paths = (SHIPPED / options.config, Path(options.config).expanduser())
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BenchError(f"config {options.config}: no such file, neither here nor among detectron2's own in {SHIPPED}")
    config = get_cfg()
    try:
        config.merge_from_file(str(path))
    except Exception as error:  # readers of YAML and of other files that it names raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"config {options.config}: detectron2 refuses it ({reason}); correct it") from error
    config.MODEL.DEVICE = "cpu"  # the trainer moves it
    config.MODEL.WEIGHTS = ""
    config.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    settings: Mapping[str, Any] = {
        **({} if options.pretrained_backbone or options.checkpoint else RANDOM_BACKBONE),
        **(SMALL if options.backbone == "small" else {}),
        **options.overrides,
    }
    for key, value in settings.items():
        if isinstance(value, Mapping):
            example = f"{key}.{next(iter(value), 'KEY')}"
            raise BenchError(f"overrides.{key}: a mapping, which would replace all that is there; give {example}")
        try:
            config.merge_from_list([key, value])
        except (KeyError, AssertionError, ValueError) as error:
            raise BenchError(f"overrides.{key}: detectron2 refuses it ({str(error) or 'no such key'})") from error
    if (found := config.MODEL.ROI_HEADS.NUM_CLASSES) != num_classes:
        raise BenchError(
            f"overrides: MODEL.ROI_HEADS.NUM_CLASSES is {found}, but the data has {num_classes}; leave it out"
        )
    return config
