"""Test the backbones of torchvision's networks: sizes, strides, channels, and what pretrained weights may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import mobilenet_v2, resnet50

from pais_bench.backends.torchvision import knet, mask_rcnn
from pais_bench.backends.torchvision._backbones import PyramidOptions, build_backbone
from pais_bench.backends.torchvision._mobilenet import LEVELS
from pais_bench.errors import BenchError
from pais_bench.layers.pretrained import weights_unread

BODIES = {"mobilenet_v2": 1_811_712, "resnet50": 23_508_032, "small": 216_360}
"""Parameters of each body; MobileNetV2's and ResNet-50's are torchvision's without classifier and last convolution."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write weights of MobileNetV2 whose batch-norm statistics are not the initial ones."""
    torch.manual_seed(0)
    network = mobilenet_v2(weights=None).train()
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("name", BODIES)
def test_sizes_strides_and_channels(name: str) -> None:
    """Parameters of the body; maps of strides 4, 8, 16 (and 32, 64), all as wide as the pyramid."""
    backbone, levels = build_backbone(PyramidOptions(backbone=name, fpn_channels=48))
    with torch.no_grad():
        maps = backbone.eval()(torch.rand(1, 3, 128, 64))
    assert sum(p.numel() for p in backbone.body.parameters()) == BODIES[name]
    assert [tuple(level.shape[-2:]) for level in maps.values()][:levels] == [
        (128 // stride, 64 // stride) for stride in (4, 8, 16, 32)[:levels]
    ]
    assert {level.shape[1] for level in maps.values()} == {backbone.out_channels}
    assert backbone.out_channels == (32 if name == "small" else 48)


def test_mobilenet_maps_equal_torchvision(weights: Path) -> None:
    """The maps before the pyramid are those of torchvision's network with the same weights, and the stem is frozen."""
    backbone, _ = build_backbone(PyramidOptions(backbone="mobilenet_v2", pretrained_backbone=weights))
    network = mobilenet_v2(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    x = expected = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for i, block in enumerate(backbone.body):
            x, expected = block(x), network.features[i](expected)
            if i in LEVELS:
                assert x.shape[1] == LEVELS[i]
                torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)
    learns = [any(p.requires_grad for p in block.parameters()) for block in backbone.body]
    assert learns == [False] * 4 + [True] * 14


@pytest.mark.parametrize("plugin", [mask_rcnn, knet])
def test_weights_of_another_network_are_refused_by_name(plugin: Any, weights: Path) -> None:
    """Weights of MobileNetV2 do not fit ResNet-50, and the message names what is missing and the file."""
    options = plugin.Options(backbone="resnet50", pretrained_backbone=weights)
    with pytest.raises(BenchError, match=rf"{weights}.*another network.*missing.*features"):
        plugin.Backend(3, options)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_a_network_whose_weights_are_replaced_needs_no_file_of_them(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / f"{name}.pth"
    torch.save((mobilenet_v2 if name == "mobilenet_v2" else resnet50)(weights=None).state_dict(), path)
    options = PyramidOptions(backbone=name, fpn_channels=16, pretrained_backbone=path)
    trained, _ = build_backbone(options)
    path.unlink()
    with weights_unread():
        copy, _ = build_backbone(options)
    copy.load_state_dict(trained.state_dict())
    frozen, expected = ([one.requires_grad for one in network.parameters()] for network in (copy, trained))
    assert frozen == expected and not all(frozen)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps, same = trained.eval()(image), copy.eval()(image)
    assert all(torch.equal(maps[level], same[level]) for level in maps)
    with pytest.raises(BenchError, match="no such file of pretrained weights"):
        build_backbone(options)
