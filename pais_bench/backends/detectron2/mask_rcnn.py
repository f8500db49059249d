"""What is Mask R-CNN with weights in detectron2? Its own model; here is only how a weight enters its losses.

Kept from detectron2: config, network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted.py), a mask-IoU head, and what single baselines ask of a network. At unit weights each stock loss is
detectron2's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from detectron2.structures import BitMasks, Boxes
from detectron2.structures import Instances as Fields
from detectron2.utils.events import EventStorage
from pydantic import Field
from torch import Tensor, nn

from pais_bench.asking import enter_training, evaluating
from pais_bench.backends.detectron2._weighted import (
    PaddedToTheStep,
    QualityRoIs,
    RememberingMatcher,
    WeightedPredictor,
    WeightedProposals,
)
from pais_bench.config import Frozen
from pais_bench.noise_tolerant import NoiseTolerantPredictor
from pais_bench.pretrained import existing, refuse_foreign, unreadable
from pais_bench.quality import QualityHead
from pais_bench.types import BenchError, Instances, Targets

# detectron2 calls it as it was called before; nobody who trains can act on that.
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming")

SHIPPED = Path(detectron2.__file__).parent / "model_zoo" / "configs"
_TERMS = {
    "loss_rpn_cls": "objectness",
    "loss_rpn_loc": "proposal_box",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_quality": "quality",
}
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
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    "TEST.DETECTIONS_PER_IMAGE": 15,
}
"""What makes it a network that learns small images on a CPU, like torchvision/mask_rcnn's small one in the demo."""


class Options(Frozen):
    """Set the network; the defaults are detectron2's Mask R-CNN R50-FPN."""

    config: str = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    """A file below detectron2's own configs, or one of yours; its model has to be a Mask R-CNN of StandardROIHeads."""
    overrides: dict[str, Any] = {}
    """Keys of the config that differ: {MODEL.RESNETS.DEPTH: 101}."""
    backbone: Literal["resnet50", "small"] = "resnet50"
    """resnet50 is what the config says; small changes it to one of 1 M parameters for small images on a CPU."""
    weights: Path | None = None
    """A backbone of detectron2's model zoo on disk (ImageNet, R-50.pkl); None trains from random weights."""
    checkpoint: Path | None = None
    """A checkpoint of detectron2's for the whole network with the same number of classes, to start from."""
    mask_head: Literal["fcn", "noise_tolerant"] = "fcn"
    """fcn is what the config says; noise_tolerant replaces its last layers [Noisy Boundaries, paper.md 7]."""
    boundary_weight: float = Field(default=0.0, ge=0)
    """Mean weight of a mask's pixels, weighed by the predicted boundary; 0 weighs all alike [3: Noisy Boundaries]."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """Exponent of a focal class loss; 0 is the config's, cross-entropy; Unbiased Teacher has 1.5."""
    quality_channels: int = Field(default=64, ge=1)


class Backend(nn.Module):
    """Offer loss and predict over detectron2's Mask R-CNN."""

    def __init__(self, classes: int, options: Options) -> None:
        super().__init__()
        config = _config(classes, options)
        self.bgr = config.INPUT.FORMAT == "BGR"
        try:
            self.model = build_model(config)
        except (AssertionError, KeyError, ValueError) as error:
            raise BenchError(
                f"config {options.config}: detectron2 refuses it ({error}); look at 'overrides'"
            ) from error
        if options.weights:
            _load(self.model, options.weights, "backbone.bottom_up.")
        if options.checkpoint:
            _load(self.model, options.checkpoint, "")
        rois, rpn = self.model.roi_heads, self.model.proposal_generator
        rois.quality_head = QualityHead(config.MODEL.FPN.OUT_CHANNELS, options.quality_channels)
        _mixed(self.model, PaddedToTheStep)
        _mixed(rois, QualityRoIs)
        _mixed(rois.box_predictor, WeightedPredictor)
        rois.boundary_weight, rois.box_predictor.focal_gamma = options.boundary_weight, options.focal_gamma
        if options.mask_head == "noise_tolerant":
            _expect_noise(rois.mask_head)
        _mixed(rpn, WeightedProposals)
        _mixed(rpn.anchor_matcher, RememberingMatcher)
        self.to(memory_format=torch.channels_last)  # takes less time; detectron2's operators read any layout

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.model.backbone.bottom_up.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses objectness, proposal_box, class, box, mask and quality of a batch of views."""
        enter_training(self)
        rpn, rois = self.model.proposal_generator, self.model.roi_heads
        rpn.backgrounds = rois.box_predictor.backgrounds = [target.background for target in targets]
        rpn.seeds = rois.seeds = [target.seed for target in targets]
        batch = [
            {"image": self._loaded(image), "instances": _truth(t)} for image, t in zip(images, targets, strict=True)
        ]
        with EventStorage():  # detectron2 logs into one, and we read none of it
            losses = self.model(batch)
        return {term: losses[name] for name, term in _TERMS.items()}

    @torch.no_grad()
    def score(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Give class probabilities f32[n,C+1], background first, and boxes f32[n,C,4] for boxes f32[n,4] of each view.

        The boxes given back are those that the box head makes of the given ones, per class. The mode is restored.
        """
        with evaluating(self):
            batch = self.model.preprocess_image([{"image": self._loaded(image)} for image in images])
            return self.model.roi_heads.score(self.model.backbone(batch.tensor), list(boxes))

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give at most TEST.DETECTIONS_PER_IMAGE instances a view, sorted by falling score; restore the mode."""
        with evaluating(self):
            found = self.model([{"image": self._loaded(image)} for image in images])
            return [_instances(one["instances"]) for one in found]

    def _loaded(self, image: Tensor) -> Tensor:
        """Give what detectron2's own loading gives: 0..255, in the order of channels that the config names."""
        return 255 * (image.flip(0) if self.bgr else image)


def _expect_noise(head: Any) -> None:
    """Let a mask head end in a fine and a coarse map, in the place of its doubling and its logits."""
    width, maps = head.predictor.in_channels, head.predictor.out_channels
    head.deconv, head.deconv_relu = nn.Identity(), nn.Identity()
    head.predictor = NoiseTolerantPredictor(width, width, maps)


def _config(classes: int, options: Options) -> CfgNode:
    path = next((one for one in (SHIPPED / options.config, Path(options.config).expanduser()) if one.is_file()), None)
    if path is None:
        raise BenchError(f"config {options.config}: no such file, neither here nor among detectron2's own in {SHIPPED}")
    config = get_cfg()
    config.merge_from_file(str(path))
    config.MODEL.DEVICE = "cpu"  # who trains it moves it
    config.MODEL.WEIGHTS = ""
    config.MODEL.ROI_HEADS.NUM_CLASSES = classes
    settings: Mapping[str, Any] = {
        **({} if options.weights or options.checkpoint else RANDOM_BACKBONE),
        **(SMALL if options.backbone == "small" else {}),
        **options.overrides,
    }
    for key, value in settings.items():
        try:
            config.merge_from_list([key, value])
        except (KeyError, AssertionError, ValueError) as error:
            raise BenchError(f"overrides.{key}: detectron2 refuses it ({str(error) or 'no such key'})") from error
    if {config.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE, config.MODEL.RPN.BBOX_REG_LOSS_TYPE} != {"smooth_l1"}:
        raise BenchError(
            f"config {options.config}: its box loss has no weights here; set BBOX_REG_LOSS_TYPE to smooth_l1"
        )
    return config


class _Checkpointer(DetectionCheckpointer):
    """Read what detectron2 reads, and keep what did not fit, of which it would only warn."""

    def _log_incompatible_keys(self, incompatible):
        self.incompatible = incompatible


def _load(model: nn.Module, path: Path, part: str) -> None:
    """Load a file of detectron2's model zoo; all names that begin with `part` have to fit.

    detectron2's own reader unpickles, so the file has to be one that you trust. Raises BenchError where it cannot be
    read, or where names or shapes do not fit.
    """
    path = existing(path)
    reader = _Checkpointer(model, save_to_disk=False)
    try:
        reader.load(str(path), checkpointables=[])
    except Exception as error:
        raise unreadable(path, error) from error
    found = reader.incompatible
    shapes = [name for name, *_ in found.incorrect_shapes if name.startswith(part)]
    missing = [name for name in found.missing_keys if name.startswith(part)]
    foreign = [] if part else list(found.unexpected_keys)
    missing, foreign = ([n for n in names if not n.endswith("num_batches_tracked")] for names in (missing, foreign))
    refuse_foreign(path, missing, [*foreign, *shapes])


def _truth(target: Targets) -> Fields:
    """Give an image's instances with the fields that detectron2 hands to the sampled proposals."""
    truth = target.instances
    return Fields(
        tuple(truth.masks.shape[-2:]),
        gt_boxes=Boxes(truth.boxes),
        gt_classes=truth.labels,
        gt_masks=BitMasks(truth.masks),
        gt_area=truth.masks.flatten(1).sum(1).float(),
        gt_class_weight=target.class_weight,
        gt_mask_weight=target.mask_weight,
        gt_box_weight=target.box_weight,
    )


def _instances(found: Fields) -> Instances:
    return Instances(
        boxes=found.pred_boxes.tensor.float(),
        labels=found.pred_classes,
        masks=found.pred_masks,
        scores=found.scores.float(),
        quality=found.quality.float(),
    )


def _mixed(module: Any, mixin: type) -> None:
    """Put a mixin before the class of an object, in place: its construction stays detectron2's own."""
    module.__class__ = type(f"{mixin.__name__}{type(module).__name__}", (mixin, type(module)), {})
