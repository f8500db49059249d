"""Are the networks of mmdet mmdet's own?"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALLEST, instances, load_backend
from torchvision.models import resnet18

from pais_bench.types import BenchError, Targets

MASK_RCNN, MASK2FORMER = load_backend("mmdet/mask_rcnn"), load_backend("mmdet/mask2former")
from mmengine.structures import InstanceData  # noqa: E402

from pais_bench.backends.mmdet import _networks  # noqa: E402

CLASSES = 3
BOTH = pytest.mark.parametrize("plugin", [MASK_RCNN, MASK2FORMER], ids=["mask_rcnn", "mask2former"])


def options(plugin: Any, **changes: Any) -> Any:
    small = SMALLEST["mmdet/mask_rcnn" if plugin is MASK_RCNN else "mmdet/mask2former"]
    return plugin.Options(**{**small, **changes})


def ours(plugin: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    return plugin.Backend(CLASSES, options(plugin, **changes))


def stock(plugin: Any, backend: Any) -> Any:
    """Give the same network as mmdet itself builds it, with the weights of ours."""
    heads = {"roi_head.bbox_head.num_classes": CLASSES, "roi_head.mask_head.num_classes": CLASSES}
    if plugin is MASK2FORMER:
        heads = {f"{head}.num_things_classes": CLASSES for head in ("panoptic_head", "panoptic_fusion_head")}
        heads |= {f"{head}.num_stuff_classes": 0 for head in ("panoptic_head", "panoptic_fusion_head")}
        heads |= {"panoptic_head.loss_cls.class_weight": [1.0] * CLASSES + [0.1]}
        heads |= {"data_preprocessor.batch_augments": None}
    model = _networks.build_pretrained(options(plugin), plugin.SMALL, heads)
    weights = {name: value for name, value in backend.model.state_dict().items() if "quality" not in name}
    model.load_state_dict(weights)
    return model


def batch(*counts: int) -> tuple[list[torch.Tensor], list[Targets]]:
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand((3, 64, 80), generator=generator) for _ in counts]
    boxes = [[[4 + 7 * i, 3 + 5 * i, 30 + 8 * i, 28 + 6 * i] for i in range(count)] for count in counts]
    return images, [Targets.of_truth(instances(b, [i % 3 for i in range(len(b))], size=(64, 80))) for b in boxes]


def mmdet_terms(plugin: Any, losses: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Name mmdet's losses by our terms, levels and layers added up."""
    if plugin is MASK_RCNN:
        return {term: MASK_RCNN._total(losses[name]).sum() for name, term in MASK_RCNN._TERMS.items() if name in losses}
    terms = {"class": "loss_cls", "mask": "loss_mask", "dice": "loss_dice"}
    return {term: sum(loss.sum() for key, loss in losses.items() if key.endswith(name)) for term, name in terms.items()}


@BOTH
@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0), (5,)], ids=str)
def test_unit_weights_give_the_losses_and_gradients_of_mmdet(plugin: Any, counts: tuple[int, ...]) -> None:
    mine = ours(plugin)
    theirs = stock(plugin, mine)
    images, targets = batch(*counts)
    torch.manual_seed(1)
    found = mine.loss(images, targets)
    theirs.train()
    torch.manual_seed(1)
    expected = mmdet_terms(plugin, theirs.loss(*_networks.inputs(theirs, images, targets)))
    assert set(found) == {*expected, "quality"}
    for term, loss in expected.items():
        torch.testing.assert_close(found[term], loss, rtol=1e-5, atol=1e-7, msg=term)
    sum(loss for term, loss in found.items() if term != "quality").backward()
    sum(expected.values()).backward()
    gradients = dict(mine.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@BOTH
def test_predictions_are_those_of_mmdet(plugin: Any) -> None:
    mine = ours(plugin)
    theirs = stock(plugin, mine).eval()
    if plugin is MASK_RCNN:
        _networks.lay_channels_last(theirs)  # so that not a digit differs; its losses are those of the usual layout
    images, _ = batch(0)
    with torch.no_grad():
        expected = theirs.predict(*_networks.inputs(theirs, images), rescale=False)[0].pred_instances
    (found,) = mine.predict(images)
    expected = expected[expected.masks.flatten(1).any(1)] if plugin is MASK2FORMER else expected
    expected = expected[expected.scores.argsort(descending=True, stable=True)]
    assert len(found) > 0
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.labels, expected.labels)
    assert torch.equal(found.boxes, expected.bboxes) and torch.equal(found.masks, expected.masks)


def test_a_model_with_other_operators_of_mmcv_keeps_its_layout() -> None:
    """They would misread maps whose channels are last, and not notice."""
    deformable = {
        "backbone.depth": 50,
        "neck.in_channels": [64, 128, 256, 512],
        "backbone.dcn": {"type": "DCNv2", "deform_groups": 1},
        "backbone.stage_with_dcn": [False, False, False, True],
    }
    for changes, layout in (({}, torch.channels_last), (deformable, torch.contiguous_format)):
        overrides = {**SMALLEST["mmdet/mask_rcnn"]["overrides"], **changes}
        weight = ours(MASK_RCNN, overrides=overrides).model.backbone.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=layout)
        assert weight.is_contiguous() == (layout is torch.contiguous_format)


@BOTH
def test_the_default_is_the_network_of_mmdets_config_and_a_branch(plugin: Any) -> None:
    mine = plugin.Backend(80, plugin.Options())
    theirs = _networks.build(plugin.Options().config, {"backbone.init_cfg": None})
    size = {module: sum(p.numel() for p in module.parameters()) for module in (mine, theirs)}
    branch = sum(p.numel() for name, p in mine.named_parameters() if "quality" in name)
    assert size[mine] - branch == size[theirs]
    assert 10_000 < branch < 1_000_000


@BOTH
def test_a_checkpoint_of_mmdets_starts_the_whole_network(plugin: Any, tmp_path: Path) -> None:
    theirs = stock(plugin, ours(plugin))
    torch.save({"meta": {"epoch": 1, "dataset_meta": {}}, "state_dict": theirs.state_dict()}, tmp_path / "epoch_1.pth")
    torch.manual_seed(5)
    started = plugin.Backend(CLASSES, options(plugin, checkpoint=tmp_path / "epoch_1.pth"))
    weights = started.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in theirs.state_dict().items())


@BOTH
def test_a_checkpoint_that_does_not_fit_is_one_clear_error(plugin: Any, tmp_path: Path) -> None:
    state = stock(plugin, ours(plugin)).state_dict()
    name = "backbone.conv1.weight"
    for file, changed, message in (
        (
            "renamed",
            {("stem" if key == name else key): value for key, value in state.items()},
            rf"{name}.*1 are unknown",
        ),
        ("reshaped", {**state, name: state[name][:1]}, rf"another shape, such as {name} with \(1, 3, 7, 7\)"),
    ):
        torch.save({"state_dict": changed}, tmp_path / f"{file}.pth")
        with pytest.raises(BenchError, match=rf"{file}\.pth: these weights are of another network.*{message}"):
            plugin.Backend(CLASSES, options(plugin, checkpoint=tmp_path / f"{file}.pth"))
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BenchError, match=r"torn\.pth: cannot be loaded"):
        plugin.Backend(CLASSES, options(plugin, checkpoint=tmp_path / "torn.pth"))
    with pytest.raises(BenchError, match=r"absent\.pth: no such file"):
        plugin.Backend(CLASSES, options(plugin, checkpoint=tmp_path / "absent.pth"))


def test_imagenet_weights_of_torchvision_load_into_the_backbone_and_freeze_the_stem(tmp_path: Path) -> None:
    torch.manual_seed(2)
    body = resnet18(weights=None)
    torch.save(body.state_dict(), tmp_path / "resnet18.pth")
    wide = {"backbone.base_channels": 64, "backbone.stem_channels": 64, "neck.in_channels": [64, 128, 256, 512]}
    started = ours(MASK_RCNN, weights=tmp_path / "resnet18.pth", overrides=wide)
    backbone = started.model.backbone
    assert torch.equal(backbone.layer3[0].conv1.weight, body.layer3[0].conv1.weight)
    learning = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("conv1", "layer1")) for name in learning) and "layer2.0.conv1.weight" in learning


@BOTH
def test_a_setting_that_mmdet_refuses_is_told_in_a_sentence(plugin: Any) -> None:
    with pytest.raises(BenchError, match=r"mmdet refuses it \(.*dept.*\); look at its keys and at 'overrides'"):
        plugin.Backend(CLASSES, options(plugin, overrides={"backbone.dept": 18}))
    with pytest.raises(BenchError, match="config nowhere.py: no such file"):
        plugin.Backend(CLASSES, options(plugin, config="nowhere.py"))


def test_a_background_may_be_a_function_of_the_boxes() -> None:
    found = []
    for background in (0.25, lambda boxes: boxes.new_full((len(boxes),), 0.25)):
        mine = ours(MASK_RCNN)
        images, targets = batch(3, 1)
        torch.manual_seed(1)
        found.append(mine.loss(images, [replace(target, background=background) for target in targets]))
    torch.testing.assert_close(found[0]["class"], found[1]["class"])
    assert found[0]["objectness"] < found[1]["objectness"], "proposals have a number for it, or 1"


def test_box_weights_scale_the_boxes_of_proposals_and_regions() -> None:
    mine = ours(MASK_RCNN)
    images, targets = batch(3, 1)
    found = []
    for value in (1.0, 2.0):
        torch.manual_seed(1)
        weighed = [replace(t, box_weight=torch.full_like(t.box_weight, value)) for t in targets]
        found.append(copy.deepcopy(mine).loss(images, weighed))
    for term in ("box", "proposal_box"):
        torch.testing.assert_close(found[1][term], 2 * found[0][term])
    torch.testing.assert_close(found[1]["class"], found[0]["class"])


def test_scores_of_boxes_are_those_of_mmdet() -> None:
    mine = ours(MASK_RCNN)
    theirs = stock(MASK_RCNN, mine).eval()
    images, targets = batch(3, 1)
    with torch.no_grad():
        padded, samples = _networks.inputs(theirs, images)
        boxes = [InstanceData(bboxes=target.instances.boxes) for target in targets]
        metas = [sample.metainfo for sample in samples]
        expected = theirs.roi_head.predict_bbox(theirs.extract_feat(padded), metas, boxes, rcnn_test_cfg=None)
    found = mine.score(images, [target.instances.boxes for target in targets])
    edge = torch.tensor([80.0, 64, 80, 64])
    for (probability, refined), one in zip(found, expected, strict=True):
        torch.testing.assert_close(probability.roll(-1, 1), one.scores)
        torch.testing.assert_close(refined.clamp(min=0).minimum(edge).flatten(1), one.bboxes.flatten(1))
