"""Build backbones of timm: networks with maps of strides 4 to 32, and plain vision transformers."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.backends.torchvision._bodies import Body
from pais_bench.errors import BenchError
from pais_bench.layers.pretrained import existing, fit_weights, unreadable
from pais_bench.optional_packages import import_package

PREFIX = "timm/"
INSTALL = "install the extra 'pais-bench[timm]' there, or take a backbone of torchvision's"
STRIDES = (4, 8, 16, 32)
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
"""Arguments of networks that else take images of one size alone."""
PLAIN_STRIDE = 16
"""Stride of a plain vision transformer's map; images of other patches are resized to have it."""


def build_timm(name: str, weights: Path | None) -> Body:
    """Build a network of timm, given without the prefix, with random weights or those of a file of timm's.

    Raises BenchError where timm is not installed, has no such network, or the network has no maps of STRIDES and is no
    plain vision transformer; where the file is missing, holds no weights, or its names or shapes do not fit.
    """
    timm = import_package("timm", INSTALL, f"backbone '{PREFIX}{name}': ")
    network = _create(timm, name)
    if weights:
        classifier = network.default_cfg.get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else classifier
        fit_weights(network, _read(timm, weights), weights, optional=tuple(f"{head}." for head in heads))
    features = list(network.feature_info)
    strides = [feature["reduction"] for feature in features]
    plain = len(set(strides)) == 1 and len(strides) >= len(STRIDES)
    if not plain and not set(STRIDES) <= set(strides):
        raise BenchError(
            f"backbone '{PREFIX}{name}': its maps have strides {', '.join(map(str, sorted(set(strides))))}; take a "
            f"network with maps of 4, 8, 16 and 32, or a plain vision transformer"
        )
    if plain:
        stages = [features[len(features) * i // len(STRIDES)]["module"] for i in range(len(STRIDES))]
        indices = [len(features) - 1]
        maps = partial(_plain_map, patch=strides[0])
    else:
        indices = [max(i for i, stride in enumerate(strides) if stride == wanted) for wanted in STRIDES]
        stages = _stages(name, network, [features[i]["module"] for i in indices])
        maps = partial(_maps, indices=indices)
    network.prune_intermediate_layers(indices, prune_norm=not plain, prune_head=True)
    _split_norms(timm, network)
    body = Body(
        network,
        maps,
        channels=tuple(features[i]["num_chs"] for i in indices),
        strides=STRIDES,
        stages=tuple(stages),
        statistics=(tuple(network.default_cfg["mean"]), tuple(network.default_cfg["std"])),
    )
    _require_maps(name, body)
    return body


def _create(timm: Any, name: str) -> Any:
    """Build a network for images of any size."""
    if not timm.is_model(name):
        raise BenchError(f"backbone '{PREFIX}{name}': timm {timm.__version__} has no such network; look at its name")
    try:
        with torch.device("meta"):
            known = inspect.signature(type(timm.create_model(name)).__init__).parameters
        network = timm.create_model(name, **{key: value for key, value in ANY_SIZE.items() if key in known})
    except RuntimeError as error:  # an unknown tag of weights, behind the dot
        raise BenchError(f"backbone '{PREFIX}{name}': timm refuses it ({error}); look at its name") from error
    if not hasattr(network, "forward_intermediates") or not hasattr(network, "prune_intermediate_layers"):
        raise BenchError(f"backbone '{PREFIX}{name}': timm gives no maps of this network; take another")
    return network


def _read(timm: Any, path: Path) -> dict[str, Tensor]:
    """Read weights of timm, as safetensors or by torch."""
    path = existing(path)
    try:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(path), use_ema=False)
    except Exception as error:
        raise unreadable(path, error) from error
    return state


def _stages(name: str, network: nn.Module, ends: list[str]) -> list[str]:
    """Return the first module of each stage: the end of the first one, and what follows the end of each other."""
    modules = [module for module, _ in network.named_modules()]
    missing = [end for end in ends if end not in modules]
    if missing:
        raise BenchError(f"backbone '{PREFIX}{name}': its stage '{missing[0]}' is no module; take another network")
    last = [max(i for i, module in enumerate(modules) if f"{module}.".startswith(f"{end}.")) for end in ends]
    return [ends[0], *(modules[i + 1] for i in last[:-1])]


def _require_maps(name: str, body: Body) -> None:
    """Raise BenchError where the network takes no view of 64 x 96 px, or its maps are others than timm says."""
    strides = (PLAIN_STRIDE,) if len(body.channels) == 1 else body.strides
    try:
        with torch.no_grad():
            maps = body.maps(body.network.eval(), torch.zeros(1, 3, 64, 96))
    except Exception as error:
        raise BenchError(
            f"backbone '{PREFIX}{name}': takes no view of 64 x 96 px ({(str(error).splitlines() or [''])[0]}); take a "
            f"network for images of any size"
        ) from error
    body.network.train()
    found = [tuple(level.shape[1:]) for level in maps]
    wanted = [(width, 64 // stride, 96 // stride) for width, stride in zip(body.channels, strides, strict=True)]
    if found != wanted:
        raise BenchError(f"backbone '{PREFIX}{name}': its maps are {found} and not {wanted}; take another network")


def _split_norms(timm: Any, network: nn.Module) -> None:
    """Take norms and the activations in them apart: freezing and several devices know torch's batch norm alone."""
    for name, child in network.named_children():
        if not isinstance(child, timm.layers.BatchNormAct2d):
            _split_norms(timm, child)
            continue
        norm, state = nn.BatchNorm2d(child.num_features, child.eps, child.momentum), child.state_dict()
        norm.load_state_dict({key: state[key] for key in norm.state_dict()})
        setattr(network, name, nn.Sequential(norm, child.drop, child.act))


def _maps(network: Any, images: Tensor, indices: list[int]) -> list[Tensor]:
    maps: list[Tensor] = network.forward_intermediates(images, indices=indices, intermediates_only=True)
    return maps


def _plain_map(network: Any, images: Tensor, patch: int) -> list[Tensor]:
    """Return the last map, after the last norm, of stride 16: of images that are resized for patches of other sizes."""
    if patch != PLAIN_STRIDE:
        size = [length // PLAIN_STRIDE * patch for length in images.shape[-2:]]
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    maps: list[Tensor] = network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    return maps
