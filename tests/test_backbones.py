"""Test the backbones of torchvision's networks: sizes, strides, channels, what is frozen, and what weights may be."""

from __future__ import annotations

import copy
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import KNET, NETWORK, instances
from torch import Tensor, nn
from torchvision import models

from pais_bench.backends.torchvision import knet, mask_rcnn
from pais_bench.backends.torchvision._backbones import Pyramid, PyramidOptions, build_backbone
from pais_bench.backends.torchvision._bodies import NAMES, SOURCES
from pais_bench.errors import BenchError
from pais_bench.init import network as init_network
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.study.base import parse
from pais_bench.types import Targets

BODIES = {
    "convnext_small": 49_453_152,
    "convnext_tiny": 27_818_592,
    "mobilenet_v2": 1_811_712,
    "mobilenet_v3_large": 2_816_432,
    "mobilenet_v3_small": 870_560,
    "resnet101": 42_500_160,
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "small": 216_360,
    "swin_s": 48_835_722,
    "swin_t": 27_517_818,
}
"""Parameters of each body: those that torchvision publishes, without classifier, last norm and last convolution."""
TIMM = {"test_resnet": 469_688, "test_efficientnet": 356_196, "test_convnext": 272_128, "test_vit": 371_240}
"""Small networks of timm, with the parameters of their classifiers: a ResNet, ..., a plain vision transformer."""
LIGHT = ("resnet18", "mobilenet_v3_small", "swin_t", "convnext_tiny", "small")
"""One of each family."""
VIEW = (1, 3, 64, 96)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(name: str, **options: Any) -> Pyramid:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra pais-bench[timm] is not installed")
    torch.manual_seed(0)
    return build_backbone(PyramidOptions(backbone=name, **options))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write weights of networks whose batch-norm statistics are not the initial ones."""
    torch.manual_seed(0)
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name in ("mobilenet_v2", "mobilenet_v3_small", "resnet18"):
        network = getattr(models, name)(weights=None).train()
        with torch.no_grad():
            network(torch.rand(4, 3, 64, 64))
        paths[name] = folder / f"{name}.pth"
        torch.save(network.state_dict(), paths[name])
    return paths


def test_every_backbone_is_tested() -> None:
    assert sorted(NAMES) == sorted(BODIES)
    assert all(name in SOURCES or name == "small" for name in init_network.STRIDES)


@pytest.mark.parametrize("name", BODIES)
def test_sizes_strides_and_channels(name: str) -> None:
    """Parameters of the body; maps of strides 4, 8, 16 (and 32, 64), all as wide as the pyramid."""
    backbone = build(name, fpn_channels=48)
    with torch.no_grad():
        maps = backbone.eval()(torch.rand(VIEW))
        raw = backbone.maps(backbone.body, torch.rand(VIEW))
    assert size(backbone.body) == BODIES[name]
    strides = (4, 8, 16, 32)[: backbone.levels]
    assert [tuple(level.shape[-2:]) for level in raw] == [(64 // stride, 96 // stride) for stride in strides]
    assert [tuple(level.shape[-2:]) for level in maps.values()][: len(strides)] == [
        (x.shape[2], x.shape[3]) for x in raw
    ]
    assert list(maps) == (["0", "1", "2"] if name == "small" else ["0", "1", "2", "3", "pool"])
    assert {level.shape[1] for level in maps.values()} == {48} == {backbone.out_channels}
    assert len(init_network.STRIDES.get(name, maps)) == len(maps)


GOLDEN: dict[str, tuple[str, list[float]]] = {
    "resnet50": ("d03f98ef6e93", [11.53171, 10.95739, 10.50607, 7.361043, 7.213444]),
    "mobilenet_v2": ("96980e3f402c", [0.00359586, 0.0003234072, 9.236597e-07, 6.787459e-10, 6.52635e-10]),
    "small": ("48c01ae4bac2", [0.01163689, 0.001819678, 0.0002606068]),
}
"""Names and shapes of the state dict, as a digest, and the root mean squares of the levels, of earlier versions."""


@pytest.mark.parametrize("name", GOLDEN)
def test_names_and_numbers_stay_what_they_were(name: str) -> None:
    digest, expected = GOLDEN[name]
    backbone = build(name).eval()
    rows = "\n".join(f"{key} {tuple(value.shape)}" for key, value in backbone.state_dict().items())
    assert hashlib.sha256(rows.encode()).hexdigest()[:12] == digest
    with torch.no_grad():
        levels = backbone(torch.rand(VIEW, generator=torch.Generator().manual_seed(1)))
    assert [level.square().mean().sqrt().item() for level in levels.values()] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "swin_t", "convnext_tiny"])
def test_maps_equal_torchvision(name: str, weights: dict[str, Path]) -> None:
    """The maps before the pyramid are those of torchvision's network with the same weights."""
    backbone = build(name, pretrained_backbone=weights.get(name)).eval()
    torch.manual_seed(0)
    network = getattr(models, name)(weights=None).eval()
    if name in weights:
        network.load_state_dict(torch.load(weights[name], weights_only=True))
    x = torch.rand(2, 3, 64, 96)
    actual, expected = iter(backbone.maps(backbone.body, x)), x
    for child, module in getattr(network, "features", network).named_children():
        expected = module(expected)
        if child in SOURCES[name].levels:
            maps = expected.permute(0, 3, 1, 2) if name == "swin_t" else expected
            assert maps.shape[1] == SOURCES[name].levels[child]
            torch.testing.assert_close(next(actual), maps, rtol=1e-4, atol=1e-5)
        if child == list(SOURCES[name].levels)[-1]:
            break
    assert not list(actual)


def learning(backbone: Pyramid) -> set[str]:
    return {name.split(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}


def test_weights_freeze_stem_first_stage_and_norms(weights: dict[str, Path]) -> None:
    blocks = {str(i) for i in range(18)}
    assert learning(build("mobilenet_v2", pretrained_backbone=weights["mobilenet_v2"])) == blocks - set("0123")
    resnet = build("resnet18", pretrained_backbone=weights["resnet18"])
    assert learning(resnet) == {"layer2", "layer3", "layer4"}
    assert not [module for module in resnet.body.modules() if isinstance(module, nn.BatchNorm2d)]
    chosen = build("resnet18", pretrained_backbone=weights["resnet18"], frozen_stages=2, backbone_norm="batch_norm")
    norms = [name for name, module in chosen.body.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert learning(chosen) == {"layer3", "layer4"} == {name.split(".")[0] for name in norms}


@pytest.mark.parametrize("name", [*LIGHT, *(f"timm/{name}" for name in TIMM)])
@pytest.mark.parametrize("stages", [-1, 0, 2])
def test_what_is_frozen_stays_and_all_else_learns(name: str, stages: int) -> None:
    """Neither weight nor statistic of frozen stages changes, all other parameters have a gradient, and no draw is made.

    A network that drew once a batch would depend on how the batch is divided among devices.
    """
    backbone = build(name, frozen_stages=stages, fpn_channels=16).train()
    before, views = copy.deepcopy(backbone.body.state_dict()), torch.rand(2, 3, 64, 96)
    generator = torch.get_rng_state()
    levels = backbone(views)
    assert torch.equal(generator, torch.get_rng_state())
    torch.stack([level.square().mean() for level in levels.values()]).sum().backward()
    frozen = {key for key, p in backbone.body.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (stages >= 0)
    assert not [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    after = backbone.body.state_dict()
    changed = {key.rpartition(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert changed == {key for key, module in backbone.body.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not {f"{key}.weight" for key in changed} & frozen


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "timm/test_vit"])
def test_all_stages_frozen_is_a_body_that_does_not_learn(name: str) -> None:
    assert not learning(build(name, frozen_stages=4))


@pytest.mark.parametrize("name", TIMM)
def test_maps_of_timm_load_from_its_weights(name: str, tmp_path: Path) -> None:
    """Weights of a whole network of timm load, and the maps are those of timm, with norms frozen and without a head."""
    timm = pytest.importorskip("timm", reason="the extra pais-bench[timm] is not installed")
    torch.manual_seed(3)
    network = timm.create_model(name)
    assert size(network) == TIMM[name]
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 160, 160))
    path = tmp_path / ("model.safetensors" if name == "test_vit" else "weights.pth")
    save = pytest.importorskip("safetensors.torch").save_file if name == "test_vit" else torch.save
    save(network.eval().state_dict(), path)
    backbone = build(f"timm/{name}", pretrained_backbone=path, fpn_channels=16).eval()
    views = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        actual = backbone.maps(backbone.body, views)
        expected = network.forward_intermediates(views, norm=name == "test_vit", intermediates_only=True)
        levels = backbone(views)
    for mine, theirs in zip(actual, expected[-len(actual) :], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert [level.shape[-2:] for level in levels.values()] == [(160 // s, 160 // s) for s in (4, 8, 16, 32)] + [(3, 3)]
    assert learning(backbone) and size(backbone.body) < size(network)


def test_a_patch_of_14_px_sees_the_view_at_seven_eighths() -> None:
    """DINOv2's smallest transformer: 22 M parameters, and maps of the strides of every other backbone."""
    timm = pytest.importorskip("timm", reason="the extra pais-bench[timm] is not installed")
    backbone = build("timm/vit_small_patch14_dinov2", fpn_channels=16).eval()
    assert size(backbone.body) == 22_056_192
    views = torch.rand(VIEW)
    resized = nn.functional.interpolate(views, (56, 84), mode="bilinear", antialias=True)
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", dynamic_img_size=True).eval()
    with torch.no_grad():
        (actual,) = backbone.maps(backbone.body, views)
        expected = network.forward_features(resized)[:, network.num_prefix_tokens :]
        assert [level.shape[-1] for level in backbone(views).values()] == [24, 12, 6, 3, 2]
    torch.testing.assert_close(actual.flatten(2).transpose(1, 2), expected)


WIDE = {"anchor_sizes": [8, 16, 32, 64, 128]}
NETWORKS = [(mask_rcnn, NETWORK | WIDE), (knet, KNET)]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t", "timm/test_convnext", "timm/test_vit"])
@pytest.mark.parametrize(("plugin", "options"), NETWORKS, ids=["mask_rcnn", "knet"])
def test_networks_learn_and_predict(plugin: Any, options: dict[str, Any], name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra pais-bench[timm] is not installed")
    torch.manual_seed(0)
    backend = plugin.Backend(3, plugin.Options(**options | {"backbone": name, "fpn_channels": 16}))
    views = [torch.rand(3, 64, 64), torch.rand(3, 64, 48)]
    found = [instances([[8, 8, 40, 40]], size=(64, 64)), instances([[4, 4, 20, 30]], size=(64, 48))]
    losses = backend.loss(views, [Targets.unweighted(one) for one in found], batch_normalizer)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [key for key, p in backend.named_parameters() if p.grad is None] == []
    teacher = copy.deepcopy(backend).eval()
    for one, other in zip(teacher.predict(views), backend.predict(views), strict=True):
        assert torch.equal(one.masks, other.masks) and len(one) > 0


def test_views_are_normalised_as_the_backbone_expects() -> None:
    """test_vit wants a mean and a deviation of 1/2; torchvision's backbones want ImageNet's."""
    white = [torch.ones(3, 64, 64)]
    seen: dict[str, Tensor] = {}
    for name in ("small", "timm/test_vit"):
        backbone = build(name)
        anchors = {} if name == "small" else WIDE
        backend = mask_rcnn.Backend(3, mask_rcnn.Options(**NETWORK | anchors | {"backbone": name}))
        assert backend.model.backbone.statistics == backbone.statistics
        seen[name] = backend._image_list(white, (0, 0)).tensors[0, :, 0, 0]
    torch.testing.assert_close(seen["timm/test_vit"], torch.ones(3))
    torch.testing.assert_close(seen["small"], torch.tensor([2.248908, 2.428571, 2.640000]))


@pytest.mark.parametrize("plugin", [mask_rcnn, knet])
def test_weights_of_another_network_are_refused_by_name(plugin: Any, weights: dict[str, Path]) -> None:
    """Weights of MobileNetV2 do not fit ResNet-50, and the message names what is missing and the file."""
    path = weights["mobilenet_v2"]
    options = plugin.Options(backbone="resnet50", pretrained_backbone=path)
    with pytest.raises(BenchError, match=rf"{path}.*another network.*missing.*features"):
        plugin.Backend(3, options)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_a_network_whose_weights_are_replaced_needs_no_file_of_them(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / f"{name}.pth"
    torch.save(getattr(models, name)(weights=None).state_dict(), path)
    options = PyramidOptions(backbone=name, fpn_channels=16, pretrained_backbone=path)
    trained = build_backbone(options)
    path.unlink()
    copy = build_backbone(options, pretrained=False)
    copy.load_state_dict(trained.state_dict())
    frozen, expected = ([one.requires_grad for one in network.parameters()] for network in (copy, trained))
    assert frozen == expected and not all(frozen)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps, same = trained.eval()(image), copy.eval()(image)
    assert all(torch.equal(maps[level], same[level]) for level in maps)
    with pytest.raises(BenchError, match="no such file of pretrained weights"):
        build_backbone(options)


def test_weights_of_another_width_are_refused_by_shape(tmp_path: Path) -> None:
    torch.save(models.mobilenet_v2(weights=None, width_mult=0.5).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(BenchError, match=r"narrow\.pth.*another shape, such as features\.0\.0\.weight"):
        build("mobilenet_v2", pretrained_backbone=tmp_path / "narrow.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": "resnet"},
            "'backbone'.*no such backbone; choose one of .*resnet18.*or timm/NAME, got \"resnet\"",
        ),
        ({"backbone": "small", "pretrained_backbone": "w.pth"}, "'small' has no pretrained weights; leave out"),
        ({"backbone": "small", "frozen_stages": 4}, "'small': frozen_stages is 4, but it has 3 stages"),
        ({"backbone": "swin_t", "backbone_norm": "batch_norm"}, "'swin_t': it has no batch norm; leave out"),
        ({"frozen_stages": -2}, "'frozen_stages'.*greater than or equal to -1"),
        ({"backbone": "timm/no_such"}, "timm/no_such': timm .* has no such network"),
        ({"backbone": "timm/test_vit.no_tag"}, "timm/test_vit.no_tag': timm refuses it"),
        (
            {"backbone": "timm/test_maxvit"},
            "timm/test_maxvit': takes no view of 64 x 96 px .*; take a network for images",
        ),
        ({"backbone": "timm/levit_128s"}, "timm/levit_128s': its maps have strides 16, 32, 64; take"),
        ({"backbone": "timm/test_vit", "pretrained_backbone": "w.pth"}, "w.pth: no such file of pretrained weights"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options: dict[str, Any], message: str) -> None:
    if str(options.get("backbone")).startswith("timm/"):
        pytest.importorskip("timm", reason="the extra pais-bench[timm] is not installed")
    with pytest.raises(BenchError, match=message):
        build_backbone(parse(PyramidOptions, options, "networks.mask_rcnn.options"))


@pytest.mark.parametrize(
    "options",
    [
        {"anchor_ratios": []},
        {"anchor_ratios": [0.5, -1]},
        {"box_convs": [0]},
        {"box_detections_per_img": 0},
        {"box_positive_fraction": 25},
        {"box_score_thresh": 5},
        {"mask_layers": []},
        {"rpn_batch_size_per_image": -1},
    ],
    ids=str,
)
def test_options_of_mask_rcnn_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match=f"networks.mask_rcnn.options: '{next(iter(options))}"):
        parse(mask_rcnn.Options, options, "networks.mask_rcnn.options")


def test_another_number_of_anchor_sizes_than_levels_is_one_sentence() -> None:
    with pytest.raises(BenchError, match="anchor_sizes: 5 sizes, but backbone 'small' has 3 levels; give one a level"):
        mask_rcnn.Backend(3, mask_rcnn.Options(backbone="small"))


def test_without_timm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        BenchError, match=r"'timm/resnet18': the package 'timm' is not .*install the extra 'pais-bench\[timm\]'"
    ):
        build_backbone(PyramidOptions(backbone="timm/resnet18"))
