"""How does one of mmdet's own configs become a network? Read, changed where a study says so, built, and fed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet
import mmdet.models  # registers what configs name
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.structures import InstanceData
from torch import Tensor, nn

from pais_bench.pretrained import existing, fit_weights, unreadable
from pais_bench.shares import blanks
from pais_bench.types import BenchError, Targets

# mmdet calls it as it was called before; nobody who trains can act on that.
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming")

SHIPPED = Path(mmdet.__file__).parent / ".mim" / "configs"

SMALL_BACKBONE = {
    "backbone.depth": 18,
    "backbone.base_channels": 16,
    "backbone.stem_channels": 16,
}
SMALL_CHANNELS = [16, 32, 64, 128]
"""A ResNet-18 of 0.7 M parameters, and the channels of its four maps."""

RANDOM_BACKBONE = {
    "backbone.init_cfg": None,
    "backbone.frozen_stages": -1,
    "backbone.norm_eval": False,
    "backbone.norm_cfg.requires_grad": True,
}
"""Without weights nothing is frozen and batch norm learns: a random network behind fixed statistics diverges."""


def build(config: str, settings: Mapping[str, Any]) -> Any:
    """Build the model of a config with random weights; settings replace keys of the model, with dots: backbone.depth.

    config is a path below mmdet's own configs, or of a file of the user's. Raises BenchError where there is no such
    file, or mmdet refuses what it says.
    """
    # mmengine tells of every parameter how it was initialised, and of every file that it loads.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    path = next((one for one in (SHIPPED / config, Path(config).expanduser()) if one.is_file()), None)
    if path is None:
        raise BenchError(f"config {config}: no such file, neither here nor among mmdet's own in {SHIPPED}")
    read = Config.fromfile(path)
    try:
        read.merge_from_dict({f"model.{key}": value for key, value in settings.items()})
        # mmdet's own configs name arguments that mmcv deprecates.
        with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            model = MODELS.build(read.model)
        model.init_weights()
    except (TypeError, KeyError, AssertionError, ValueError) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"config {config}: mmdet refuses it ({fault}); look at its keys and at 'overrides'") from error
    return model


def build_pretrained(options: Any, small: Mapping[str, Any], heads: Mapping[str, Any]) -> Any:
    """Build the model that an adapter's Options describe, with the user's weights where there are any.

    small holds the settings of `backbone: small`, heads those that follow from the number of classes.
    """
    settings = {"backbone.init_cfg": None, **(small if options.backbone == "small" else {})}
    if options.weights is None and options.checkpoint is None:
        settings |= RANDOM_BACKBONE
    model = build(options.config, {**settings, **heads, **options.overrides})
    if options.weights:
        load(model.backbone, options.weights, ("fc.",))
    if options.checkpoint:
        load(model, options.checkpoint, ("data_preprocessor.",))
    return model.train()  # mmdet holds the norms of frozen stages still on entering training, and not before


def lay_channels_last(model: nn.Module) -> None:
    """Lay the convolutions' weights and maps out with channels last, which takes less time, unless mmcv would err.

    mmcv's operators read any map as if its channels came first, and do not notice. Its RoIAlign can have torchvision
    do the same sum, which reads both, and is faster on a CPU; a model with another such operator keeps its layout.
    """
    own = [module for module in model.modules() if type(module).__module__.startswith("mmcv.ops.")]
    pools = [module for module in own if isinstance(module, RoIAlign) and module.pool_mode == "avg"]
    for pool in pools:
        pool.use_torchvision = True
    if len(pools) == len(own):
        model.to(memory_format=torch.channels_last)


def load(module: nn.Module, path: Path, optional: Sequence[str]) -> None:
    """Load a file in mmdet's format or a bare state dict.

    mmdet's own reader unpickles, so the file has to be one that you trust. Raises BenchError where it cannot be read,
    or where names or shapes do not fit; `optional` are beginnings of names that may differ.
    """
    try:
        state = CheckpointLoader.load_checkpoint(str(existing(path)), map_location="cpu")
    except BenchError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    fit_weights(module, state.get("state_dict", state), path, optional)


def inputs(model: Any, images: Sequence[Tensor], targets: Sequence[Targets] | None = None) -> tuple[Tensor, list]:
    """Normalise and pad views f32[3,H,W] of 0..1 as the config says; give the batch and its samples."""
    samples = []
    for number, image in enumerate(images):
        size = tuple(image.shape[-2:])
        sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
        if targets is not None:
            sample.gt_instances = _truth(targets[number])
        samples.append(sample)
    # What mmdet's pipelines load: BGR, 0..255. The preprocessor does not notice when its parent moves.
    loaded = [255 * image.flip(0) for image in images]
    prepare = model.data_preprocessor.to(images[0].device)
    batch = prepare({"inputs": loaded + blanks(images), "data_samples": samples}, training=targets is not None)
    return batch["inputs"][: len(images)], batch["data_samples"]


def _truth(target: Targets) -> InstanceData:
    """Give an image's instances with their weights and seed; background is a number, or a function of boxes."""
    truth = target.instances
    found = InstanceData(
        bboxes=truth.boxes,
        labels=truth.labels,
        masks=BitmapMasks(truth.masks.cpu().numpy().astype("uint8"), *truth.masks.shape[-2:]),
        area=truth.masks.flatten(1).sum(1).float(),
        class_weight=target.class_weight,
        mask_weight=target.mask_weight,
        box_weight=target.box_weight,
    )
    found.set_metainfo({"background": target.background, "seed": target.seed})
    return found


def mixed(module: Any, mixin: type) -> Any:
    """Put a mixin before the class of an object, in place: its construction stays the framework's own."""
    module.__class__ = type(f"{mixin.__name__.lstrip('_')}{type(module).__name__}", (mixin, type(module)), {})
    return module
