"""Build networks from mmdet's own configs, with changed settings and extended classes."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmdet
import mmdet.models  # registers what configs name
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import CheckpointLoader
from torch import nn

from pais_bench.errors import BenchError
from pais_bench.layers.compilation import compile_once
from pais_bench.layers.pretrained import existing, fit_weights, unreadable

# mmdet calls torch.meshgrid without the argument that newer versions of torch ask for; a user cannot change that.
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming")

SHIPPED = Path(mmdet.__file__).parent / ".mim" / "configs"

SMALL_BACKBONE = {
    "backbone.depth": 18,
    "backbone.base_channels": 16,
    "backbone.stem_channels": 16,
}
SMALL_CHANNELS = [16, 32, 64, 128]
"""A ResNet-18 of 0.7 M parameters, and the channels of its four maps."""

UNFROZEN = {
    "backbone.frozen_stages": -1,
    "backbone.norm_eval": False,
    "backbone.norm_cfg.requires_grad": True,
}
"""Without weights nothing is frozen and batch norm learns: a random network behind fixed statistics diverges."""


@dataclass(frozen=True)
class Extension:
    """Extend the class that a config names for one part of the model, whichever class that is.

    The methods of `mixin` come before those of the named class; `arguments` are those that its constructor adds.
    """

    registry: Registry
    mixin: type
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: ConfigDict) -> None:
        """Register the extended class, and name it in the config of this part of the model."""
        base = config["type"] if inspect.isclass(config["type"]) else self.registry.get(config["type"])
        if base is None:
            raise KeyError(f"{config['type']} is not in the registry {self.registry.name}")
        name = f"{self.mixin.__name__}Over{base.__name__}"
        # Registered anew for every network, because two bases from different modules may have the same name.
        self.registry.register_module(name, force=True, module=types.new_class(name, (self.mixin, base)))
        config.update(type=name, **self.arguments)


def build(
    config: str,
    settings: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    extensions: Mapping[str, Extension] | None = None,
    supported: Mapping[str, Sequence[Any]] | None = None,
    learns_norms: bool = False,
) -> Any:
    """Build the model of a config with random weights.

    config is a path below mmdet's own configs, or of a file of the user's. settings, the user's overrides after them,
    and extensions belong to keys of the model, with dots: backbone.depth; a mapping is merged key by key. Extensions
    are applied last. supported: the values that keys may have then. learns_norms: nothing of the backbone is frozen.
    Raises BenchError where there is no such file, where mmdet refuses its content, for other values than the supported
    ones, and for overrides of the number of classes.
    """
    # At its usual level, mmengine logs how each parameter was initialised and each file that it loads.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    candidates = (SHIPPED / config, Path(config).expanduser())
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise BenchError(f"config {config}: no such file, neither here nor among mmdet's own in {SHIPPED}")
    _require_once(overrides or {})
    try:
        content = Config.fromfile(path)
        with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings():
            # mmdet's own configs use arguments that mmcv deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            unfrozen = _unfrozen(content.model.backbone) if learns_norms else {}
            for key, value in [*unfrozen.items(), *settings.items(), *sorted((overrides or {}).items())]:
                # One by one, as a mapping among them would replace what is set below it; in an order of their own.
                content.merge_from_dict({f"model.{key}": value})
            _require_supported(content.model, supported or {}, config)
            _require_classes(content.model, settings)
            for key, extension in (extensions or {}).items():
                extension.apply(_at(content.model, key))
            model = MODELS.build(content.model)
        model.init_weights()
    except BenchError:
        raise
    except Exception as error:  # a config is a program, and what it names raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(
            f"config {config}: mmdet refuses it ({reason}); look at its keys and at 'overrides'"
        ) from error
    return model


def _require_once(overrides: Mapping[str, Any]) -> None:
    """Raise BenchError where two overrides set one key, of which the order in the study would choose."""
    setters: dict[str, str] = {}
    for key, value in overrides.items():
        for leaf in _leaves(key, value):
            if (other := setters.setdefault(leaf, key)) != key:
                raise BenchError(f"overrides: {leaf} is set by '{other}' and by '{key}'; leave one")


def _leaves(key: str, value: Any) -> Iterator[str]:
    """Yield the keys below a key, with dots, whose values are no mappings."""
    if not isinstance(value, Mapping):
        yield key
        return
    for name, part in value.items():
        yield from _leaves(f"{key}.{name}", part)


def _unfrozen(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of UNFROZEN that a backbone has."""
    known = inspect.signature(MODELS.get(backbone["type"]).__init__).parameters
    found = {key: value for key, value in UNFROZEN.items() if key.split(".")[1] in known}
    if "norm_cfg" not in backbone:  # layer norms, which nothing freezes
        found.pop("backbone.norm_cfg.requires_grad", None)
    return found


def _require_supported(model: Mapping[str, Any], supported: Mapping[str, Sequence[Any]], config: str) -> None:
    """Raise BenchError for the first key whose module or loss the weighted ones cannot stand for."""
    for key, values in supported.items():
        value: Any = model
        for part in key.split("."):
            value = value and value.get(part)
        name = getattr(value, "__name__", value)  # configs in Python name classes themselves
        if name not in values:
            raise BenchError(
                f"config {config}: {key} is {name!r}, which has no weights here; set it to {values[0]!r} in "
                f"'overrides', or take another config"
            )


def _require_classes(model: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise BenchError where an override changes a number of classes, which the data has."""
    for key, value in settings.items():
        if key.endswith("_classes") and (found := _at(model, key)) != value:
            raise BenchError(f"overrides: {key} is {found}, but the data has {value}; leave it out")


def _at(model: Mapping[str, Any], key: str) -> Any:
    return functools.reduce(operator.getitem, key.split("."), model)


def build_pretrained(
    options: Any,
    small: Mapping[str, Any],
    settings: Mapping[str, Any],
    extensions: Mapping[str, Extension] | None = None,
    supported: Mapping[str, Sequence[Any]] | None = None,
    added_weights: Sequence[str] = (),
    pretrained: bool = True,
) -> Any:
    """Build the model that an adapter's Options describe, and load the user's weights where there are any.

    small holds the settings of `backbone: small`; settings those of every network of the adapter, which the user's
    overrides come after; supported as in `build`. added_weights are beginnings of names that a checkpoint of
    mmdet's does not have; pretrained: see Network.
    """
    backbone = {"backbone.init_cfg": None, **(small if options.backbone == "small" else {})}
    is_random = options.pretrained_backbone is None and options.checkpoint is None
    settings = {**backbone, **settings}
    model = build(options.config, settings, options.overrides, extensions, supported, learns_norms=is_random)
    if options.pretrained_backbone and pretrained:
        load_weights(model.backbone, options.pretrained_backbone, optional=("fc.",))
    if options.checkpoint and pretrained:
        load_weights(model, options.checkpoint, optional=("data_preprocessor.", *added_weights))
    return model.train()  # mmdet puts the norms of frozen stages in eval mode when the train mode is set, not before


def load_weights(module: nn.Module, path: Path, optional: Sequence[str]) -> None:
    """Load a file in mmdet's format or a bare state dict.

    mmdet's own reader unpickles, so the file has to be one that you trust. optional: beginnings of names that may be
    missing or unknown. Raises BenchError where the file cannot be read, or where other names or shapes do not fit.
    """
    try:
        state = CheckpointLoader.load_checkpoint(str(existing(path)), map_location="cpu")
    except BenchError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    fit_weights(module, state.get("state_dict", state) if isinstance(state, Mapping) else state, path, optional)


def use_channels_last(model: nn.Module) -> None:
    """Lay out a model's weights and maps with channels last, which takes less time, unless mmcv would misread them.

    mmcv's operators read every map as if its channels came first, without an error. Its RoIAlign can hand the same sum
    to torchvision, which reads both layouts and is faster on a CPU; a model with other such operators keeps its layout.
    """
    operators = [module for module in model.modules() if type(module).__module__.startswith("mmcv.ops.")]
    pools = [module for module in operators if isinstance(module, RoIAlign) and module.pool_mode == "avg"]
    for pool in pools:
        pool.use_torchvision = True
    if len(pools) == len(operators):
        model.to(memory_format=torch.channels_last)


def compile_features(model: Any) -> None:
    """Compile backbone and neck at their first use."""
    for part in (model.backbone, *([model.neck] if model.with_neck else [])):
        compile_once(part)
