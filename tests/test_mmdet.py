"""Check that networks of mmdet stay mmdet's own at unit weights, and that their files and settings are checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from framework import (
    CLASSES,
    COUNTS,
    OnDevice,
    assert_half_precision_moves_no_box,
    assert_misfits_are_refused,
    assert_same_losses,
    assert_same_on_device,
    assert_same_size,
    assert_the_mask_iou_loss_has_a_weight,
    batch,
    run_on_device,
)
from pretend_device import process
from tiny import SMALLEST, load_backend, study
from torchvision.models import resnet18

from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.types import Losses, Targets

MASK_RCNN, MASK2FORMER = load_backend("mmdet/mask_rcnn"), load_backend("mmdet/mask2former")
from mmdet.models.roi_heads.bbox_heads import Shared4Conv1FCBBoxHead  # noqa: E402
from mmengine.structures import InstanceData, instance_data  # noqa: E402

from pais_bench.backends.mmdet import _config, _samples  # noqa: E402

BOTH = pytest.mark.parametrize("plugin", [MASK_RCNN, MASK2FORMER], ids=["mask_rcnn", "mask2former"])


def options(plugin: Any, **changes: Any) -> Any:
    small = SMALLEST["mmdet/mask_rcnn" if plugin is MASK_RCNN else "mmdet/mask2former"]
    return plugin.Options(**{**small, **changes})


def ours(plugin: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    return plugin.Backend(CLASSES, options(plugin, **changes))


def stock(plugin: Any, backend: Any = None) -> Any:
    """Return the same network as mmdet itself builds it, with the weights of ours if it is given."""
    torch.manual_seed(0)
    model = _config.build_pretrained(options(plugin), plugin.SMALL, plugin.stock_settings(CLASSES))
    if backend is not None:
        model.load_state_dict(stock_weights(backend))
    return model


def stock_weights(backend: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in backend.model.state_dict().items() if "mask_iou" not in name}


def stock_losses(plugin: Any, model: Any, images: list[torch.Tensor], targets: list[Targets]) -> Losses:
    """Return mmdet's own losses under our names, levels and layers added up."""
    terms = model.train().loss(*_samples.to_batch(model, images, targets))
    if plugin is MASK_RCNN:
        return {name: MASK_RCNN.total(terms[key]).sum() for key, name in MASK_RCNN.TERMS.items() if key in terms}
    keys = {"class": "loss_cls", "mask": "loss_mask", "dice": "loss_dice"}
    return {name: sum(loss.sum() for key, loss in terms.items() if key.endswith(end)) for name, end in keys.items()}


@BOTH
@COUNTS
def test_unit_weights_give_the_losses_and_gradients_of_mmdet(plugin: Any, counts: tuple[int, ...]) -> None:
    mine = ours(plugin)
    theirs = stock(plugin, mine)
    assert_same_losses(mine, theirs, lambda *batch: stock_losses(plugin, theirs, *batch), *counts)


def test_the_mask_iou_loss_has_a_weight() -> None:
    assert_the_mask_iou_loss_has_a_weight(partial(ours, MASK_RCNN))


@BOTH
def test_predictions_are_those_of_mmdet(plugin: Any) -> None:
    mine = ours(plugin)
    theirs = stock(plugin, mine).eval()
    if plugin is MASK_RCNN:
        _config.use_channels_last(theirs)  # equal to the last digit; its losses are those of the usual layout
    images, _ = batch(0)
    with torch.no_grad():
        expected = theirs.predict(*_samples.to_batch(theirs, images), rescale=False)[0].pred_instances
    (actual,) = mine.predict(images)
    expected = expected[expected.masks.flatten(1).any(1)] if plugin is MASK2FORMER else expected
    expected = expected[expected.scores.argsort(descending=True, stable=True)]
    assert len(actual) > 0
    assert torch.equal(actual.scores, expected.scores) and torch.equal(actual.labels, expected.labels)
    assert torch.equal(actual.boxes, expected.bboxes) and torch.equal(actual.masks, expected.masks)


@BOTH
def test_a_seed_initialises_the_network_as_mmdet_does(plugin: Any) -> None:
    mine, theirs = stock_weights(ours(plugin)), stock(plugin).state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


def test_the_class_that_a_config_names_is_extended() -> None:
    overrides = {**SMALLEST["mmdet/mask_rcnn"]["overrides"], "roi_head.bbox_head.type": "Shared4Conv1FCBBoxHead"}
    head = ours(MASK_RCNN, overrides={**overrides, "roi_head.bbox_head.conv_out_channels": 8}).model.roi_head.bbox_head
    assert isinstance(head, Shared4Conv1FCBBoxHead) and len(head.shared_convs) == 4


def test_a_model_with_other_operators_of_mmcv_keeps_its_layout() -> None:
    # Such operators would misread maps whose channels are last, without an error.
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
    theirs = _config.build(plugin.Options().config, {"backbone.init_cfg": None})
    assert_same_size(plugin.Backend(80, plugin.Options()), theirs, smallest=10_000)


@pytest.mark.parametrize(
    ("plugin", "changes", "replaced"),
    [
        (MASK_RCNN, {}, set()),
        (MASK2FORMER, {}, set()),
        (MASK_RCNN, {"mask_head": "noise_tolerant"}, {"upsample", "conv_logits"}),
    ],
    ids=["mask_rcnn", "mask2former", "noise_tolerant"],
)
def test_a_checkpoint_of_mmdets_initialises_the_whole_network_but_for_another_mask_head(
    plugin: Any, changes: dict[str, str], replaced: set[str], tmp_path: Path
) -> None:
    state = stock(plugin).state_dict()
    torch.save({"meta": {"epoch": 1, "dataset_meta": {}}, "state_dict": state}, tmp_path / "epoch_1.pth")
    torch.manual_seed(5)
    backend = plugin.Backend(CLASSES, options(plugin, checkpoint=tmp_path / "epoch_1.pth", **changes))
    loaded = backend.model.state_dict()
    assert {name.split(".")[2] for name in state.keys() - loaded} == replaced
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if name in loaded)


@BOTH
def test_a_checkpoint_that_does_not_fit_is_one_clear_error(plugin: Any, tmp_path: Path) -> None:
    def build(path: Path) -> Any:
        return plugin.Backend(CLASSES, options(plugin, checkpoint=path))

    name = "backbone.conv1.weight"
    reshaped = rf"another shape, such as {name} with \(1, 3, 7, 7\)"
    assert_misfits_are_refused(build, stock(plugin).state_dict(), name, "state_dict", reshaped, tmp_path)


def test_imagenet_weights_of_torchvision_load_into_the_backbone_and_freeze_the_stem(tmp_path: Path) -> None:
    torch.manual_seed(2)
    body = resnet18(weights=None)
    torch.save(body.state_dict(), tmp_path / "resnet18.pth")
    wide = {"backbone.base_channels": 64, "backbone.stem_channels": 64, "neck.in_channels": [64, 128, 256, 512]}
    started = ours(MASK_RCNN, pretrained_backbone=tmp_path / "resnet18.pth", overrides=wide)
    backbone = started.model.backbone
    assert torch.equal(backbone.layer3[0].conv1.weight, body.layer3[0].conv1.weight)
    learning = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("conv1", "layer1")) for name in learning) and "layer2.0.conv1.weight" in learning


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"backbone.dept": 18}}, r"mmdet refuses it \(.*dept.*\); look at its keys and at 'overrides'"),
        ({"config": "nowhere.py"}, "config nowhere.py: no such file"),
    ],
)
def test_a_setting_that_mmdet_refuses_is_one_clear_error(plugin: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        plugin.Backend(CLASSES, options(plugin, **changes))


def test_a_mapping_is_merged_over_what_is_set_as_dotted_keys_are() -> None:
    set_here = ("roi_head.bbox_head.fc_out_channels", "backbone.depth")
    kept = {key: value for key, value in SMALLEST["mmdet/mask_rcnn"]["overrides"].items() if key not in set_here}
    dotted, nested = (
        ours(MASK_RCNN, overrides={**kept, **changes}).model
        for changes in (
            {"roi_head.bbox_head.fc_out_channels": 24, "backbone.depth": 34},
            {"roi_head": {"bbox_head": {"fc_out_channels": 24}}, "backbone": {"depth": 34}},
        )
    )
    assert str(nested) == str(dotted) and nested.roi_head.bbox_head.num_classes == dotted.roi_head.bbox_head.num_classes
    assert nested.backbone.init_cfg == dotted.backbone.init_cfg and nested.backbone.frozen_stages == -1
    twice = {"roi_head": {"bbox_head": {"fc_out_channels": 24}}, "roi_head.bbox_head.fc_out_channels": 8}
    with pytest.raises(
        BenchError, match=r"fc_out_channels is set by 'roi_head' and by 'roi_head\.bbox_head\.fc_out_ch"
    ):
        ours(MASK_RCNN, overrides=twice)
    with pytest.raises(BenchError, match=r"roi_head.bbox_head.num_classes is 80, but the data has 3; leave it out"):
        ours(MASK_RCNN, overrides={"roi_head.bbox_head.num_classes": 80})


def test_a_transformer_is_built_without_weights() -> None:
    swin = "mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py"
    network = MASK2FORMER.Backend(3, MASK2FORMER.Options(config=swin))
    assert type(network.model.backbone).__name__ == "SwinTransformer"
    assert all(parameter.requires_grad for parameter in network.backbone_parameters())


def test_a_class_that_mmdet_does_not_have_is_one_clear_error() -> None:
    with pytest.raises(BenchError, match=r"mmdet refuses it \(.*NoSuchNeck is not in the "):
        ours(MASK_RCNN, overrides={"neck.type": "NoSuchNeck"})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"config": "mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py"}, "roi_head.shared_head is"),
        ({"config": "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py"}, "type is 'PointRend'"),
        ({"config": "ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py"}, "type is 'MaskScoringRCNN'"),
        ({"config": "pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py"}, "roi_head.type is 'PISARoIHead'"),
        ({"config": "retinanet/retinanet_r50_fpn_1x_coco.py"}, "type is 'RetinaNet'"),
        ({"overrides": {"train_cfg.rcnn.sampler.type": "OHEMSampler"}}, "train_cfg.rcnn.sampler.type is 'OHEMSampler'"),
        ({"overrides": {"roi_head.bbox_head.loss_cls.type": "FocalLoss"}}, "loss_cls.type is 'FocalLoss'"),
        ({"overrides": {"roi_head.mask_head.loss_mask.type": "DiceLoss"}}, "loss_mask.type is 'DiceLoss'"),
    ],
)
def test_modules_and_losses_without_weights_are_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(BenchError, match=f"config .*: .*{found}.*, which has no weights here; set it to .*"):
        MASK_RCNN.Backend(CLASSES, MASK_RCNN.Options(**changes))


def test_a_maskformer_is_no_mask2former() -> None:
    with pytest.raises(BenchError, match="type is 'MaskFormer', which has no weights here"):
        MASK2FORMER.Backend(CLASSES, MASK2FORMER.Options(config="maskformer/maskformer_r50_ms-16xb1-75e_coco.py"))


def test_scores_of_boxes_are_those_of_mmdet() -> None:
    mine = ours(MASK_RCNN)
    theirs = stock(MASK_RCNN, mine).eval()
    images, targets = batch(3, 1)
    with torch.no_grad():
        padded, samples = _samples.to_batch(theirs, images)
        boxes = [InstanceData(bboxes=target.instances.boxes) for target in targets]
        metas = [sample.metainfo for sample in samples]
        expected = theirs.roi_head.predict_bbox(theirs.extract_feat(padded), metas, boxes, rcnn_test_cfg=None)
    _, scorers = mine.predict_with_scorers(images)
    actual = [scorer(target.instances.boxes) for scorer, target in zip(scorers, targets, strict=True)]
    edge = torch.tensor([80.0, 64, 80, 64])
    for (probability, refined), image in zip(actual, expected, strict=True):
        torch.testing.assert_close(probability.roll(-1, 1), image.scores)
        torch.testing.assert_close(refined.clamp(min=0).minimum(edge).flatten(1), image.bboxes.flatten(1))


def test_half_precision_moves_no_box() -> None:
    assert_half_precision_moves_no_box(ours(MASK_RCNN))


@pytest.fixture(scope="module")
def device() -> Iterator[ProcessPoolExecutor]:
    with process() as executor:
        yield executor


def on_device(name: str) -> OnDevice:
    """Run a network on the pretend device, of which mmcv's compiled NMS cannot read the tensors.

    mmengine accepts the tensors of a list of devices as an index.
    """
    nms = sys.modules["mmcv.ops.nms"]
    compiled = nms.ext_module.nms

    def on_the_cpu(boxes: torch.Tensor, scores: torch.Tensor, **settings: Any) -> torch.Tensor:
        kept: torch.Tensor = compiled(boxes.to("cpu"), scores.to("cpu"), **settings).to(boxes.device)
        return kept

    nms.ext_module = SimpleNamespace(nms=on_the_cpu)  # type: ignore[attr-defined]
    instance_data.IndexType = instance_data.IndexType | torch.Tensor
    return run_on_device(ours(load_backend(name)))


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("mmdet/mask_rcnn", {"loss": (4, 225), "predict": (1, 110)}),
        ("mmdet/mask2former", {"loss": (1, 145), "predict": (2, 30)}),
    ],
)
def test_on_a_device_the_network_computes_the_same_and_hardly_ever_waits_for_it(
    name: str, budget: dict[str, tuple[int, int]], device: ProcessPoolExecutor
) -> None:
    assert_same_on_device(device.submit(on_device, name).result(), budget)


def test_mask2former_is_trained_on_stuff_and_predicts_it(tmp_path: Path) -> None:
    values = study(metrics=["coco", "panoptic"], methods={"pais": {"options": {"score_threshold": 0.0}}})
    values["dataset"] = {"name": "shapes", "options": {"train": 20, "val": 3, "size": 64, "stuff": True}}
    values["networks"] = {"mask2former": {"backend": "mmdet", "options": SMALLEST["mmdet/mask2former"]}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    common, split = [str(path), "--results", str(tmp_path)], ["--percent", "10", "--fold", "1"]
    of_run = [*common, *split, "--network", "mask2former", "--method", "pais", "--accelerator", "cpu"]
    for command in (["prepare", *common], ["split", *common, *split], ["train", *of_run], ["predict", *of_run]):
        assert main(command) == 0, command
    (predictions,) = tmp_path.rglob("predictions.json")
    store, records = Store.open(tmp_path / "datasets" / "shapes", "val"), json.loads(predictions.read_text())
    assert records and {one["category_id"] for one in records} <= set(range(1, 11)) and store.isthing.count(False) == 2
