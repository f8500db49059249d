"""Check that detectron2/mask_rcnn is detectron2's own Mask R-CNN at unit weights."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
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
from tiny import SMALLEST, load_backend

from pais_bench.errors import BenchError
from pais_bench.types import Losses, Targets

PLUGIN = load_backend("detectron2/mask_rcnn")
from detectron2.modeling import build_model  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from pais_bench.backends.detectron2._config import stock_config  # noqa: E402


def options(**changes: Any) -> Any:
    return PLUGIN.Options(**{**SMALLEST["detectron2/mask_rcnn"], **changes})


def ours(**changes: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.Backend(CLASSES, options(**changes))


def stock(backend: Any) -> Any:
    """Build the same network as detectron2 itself does, with the parameters of ours."""
    model = build_model(stock_config(CLASSES, options()))
    model.load_state_dict({name: v for name, v in backend.model.state_dict().items() if "mask_iou" not in name})
    return model


def test_a_seed_initialises_the_network_as_detectron2_does() -> None:
    mine = ours()
    torch.manual_seed(0)
    theirs = build_model(stock_config(CLASSES, options())).state_dict()
    state = mine.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in theirs.items())


@COUNTS
def test_unit_weights_give_the_losses_and_gradients_of_detectron2(counts: tuple[int, ...]) -> None:
    mine = ours()
    theirs = stock(mine).train()

    def stock_losses(images: list[torch.Tensor], targets: list[Targets]) -> Losses:
        inputs = [
            image | {"instances": PLUGIN.detectron_instances(target)}
            for image, target in zip(mine.inputs(images, (0, 0)), targets, strict=True)
        ]
        with EventStorage():
            return {PLUGIN.TERMS[name]: loss for name, loss in theirs(inputs).items()}

    assert_same_losses(mine, theirs, stock_losses, *counts)


def test_the_mask_iou_loss_has_a_weight() -> None:
    assert_the_mask_iou_loss_has_a_weight(ours)


def test_predictions_are_those_of_detectron2() -> None:
    mine = ours()
    theirs = stock(mine).eval().to(memory_format=torch.channels_last)  # so that not a digit differs
    images, _ = batch(0)
    with torch.no_grad():
        expected = theirs(mine.inputs(images, (0, 0)))[0]["instances"]
    (detections,) = mine.predict(images)
    assert len(detections) > 0
    assert torch.equal(detections.scores, expected.scores)
    assert torch.equal(detections.labels, expected.pred_classes)
    assert torch.equal(detections.boxes, expected.pred_boxes.tensor)
    assert torch.equal(detections.masks, expected.pred_masks)


def test_the_default_is_detectron2s_r50_fpn_and_a_narrow_mask_iou_head() -> None:
    theirs = build_model(stock_config(80, PLUGIN.Options()))
    assert_same_size(PLUGIN.Backend(80, PLUGIN.Options()), theirs, smallest=100_000)


@pytest.mark.parametrize(
    ("kind", "mask_head", "replaced"),
    [
        ("pth", "fcn", ()),
        ("pkl", "fcn", ()),
        ("pth", "noise_tolerant", ("roi_heads.mask_head.deconv.", "roi_heads.mask_head.predictor.")),
    ],
)
def test_a_checkpoint_of_detectron2_initialises_the_whole_network_but_for_another_mask_head(
    kind: str, mask_head: str, replaced: tuple[str, ...], tmp_path: Path
) -> None:
    """Load a model_final.pth, which detectron2's trainer writes, and a model_final.pkl, as in its model zoo."""
    state = stock(ours()).state_dict()
    path = tmp_path / f"model_final.{kind}"
    if kind == "pth":
        torch.save({"model": state, "iteration": 3}, path)
    else:
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    torch.manual_seed(5)
    loaded = PLUGIN.Backend(CLASSES, options(checkpoint=path, mask_head=mask_head)).model.state_dict()
    names = [name for name in state if "num_batches_tracked" not in name and not name.startswith(replaced)]
    assert len(names) > 100 and all(torch.equal(loaded[name], state[name]) for name in names)


def test_a_backbone_of_the_model_zoo_freezes_the_stem(tmp_path: Path) -> None:
    body = {n.removeprefix("backbone.bottom_up."): v for n, v in ours().model.state_dict().items() if "bottom_up" in n}
    arrays = {name: value.numpy() for name, value in body.items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))
    torch.manual_seed(5)
    backbone = PLUGIN.Backend(CLASSES, options(pretrained_backbone=path)).model.backbone.bottom_up
    assert torch.equal(backbone.res4[0].conv1.weight, body["res4.0.conv1.weight"])
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("stem", "res2")) for name in trained) and "res3.0.conv1.weight" in trained


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def build(path: Path) -> Any:
        return PLUGIN.Backend(CLASSES, options(checkpoint=path))

    name = "backbone.bottom_up.stem.conv1.weight"
    reshaped = f"1 have another shape, such as {name} with"
    assert_misfits_are_refused(build, stock(ours()).state_dict(), name, "model", reshaped, tmp_path)


def override(key: str, value: object, message: str) -> tuple[dict[str, object], str]:
    return {"overrides": {key: value}}, re.escape(key) + message


NO_WEIGHTS = ", which has no weights here; set it to .* in 'overrides'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        override("MODEL.DEPT", 18, ": detectron2 refuses it"),
        override("MODEL.ROI_HEADS", {"BATCH_SIZE_PER_IMAGE": 64}, ": a mapping, .*; give .*BATCH_SIZE_PER_IMAGE"),
        (
            {"overrides": {"MODEL.ROI_HEADS.NUM_CLASSES": 80}},
            "NUM_CLASSES is 80, but the data has",
        ),
        override("MODEL.RESNETS.DEPTH", "deep", ": detectron2 refuses it"),
        ({"config": "nowhere.yaml"}, "config nowhere.yaml: no such file"),
        override("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", f" is 'CascadeROIHeads'{NO_WEIGHTS}"),
        override("MODEL.MASK_ON", False, f" is False{NO_WEIGHTS}"),
        override("MODEL.RPN.BBOX_REG_LOSS_TYPE", "giou", f" is 'giou'{NO_WEIGHTS}"),
        override("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, f" is True{NO_WEIGHTS}"),
    ],
)
def test_a_setting_that_is_refused_is_named_in_the_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        PLUGIN.Backend(CLASSES, options(**changes))


def test_views_are_padded_to_the_size_of_the_step() -> None:
    mine = ours().eval()
    images, _ = batch(0)
    larger = torch.zeros((3, 96, 128))
    alone = mine.model.preprocess_image(mine.inputs(images, (96, 128)))
    together = stock(mine).preprocess_image(mine.inputs([*images, larger], (0, 0)))
    assert alone.image_sizes == together.image_sizes[:1] and torch.equal(alone.tensor, together.tensor[:1])


def test_scores_of_boxes_are_those_of_detectron2() -> None:
    mine = ours().eval()
    images, targets = batch(3, 1)
    boxes = [target.instances.boxes for target in targets]
    rois = mine.model.roi_heads
    with torch.no_grad():
        features = mine.model.backbone(mine.model.preprocess_image(mine.inputs(images, (0, 0))).tensor)
        pooled = rois.box_pooler([features[name] for name in rois.box_in_features], [Boxes(image) for image in boxes])
        predictions = rois.box_predictor(rois.box_head(pooled))
        proposals = [Instances((64, 80), proposal_boxes=Boxes(image)) for image in boxes]
        probabilities = rois.box_predictor.predict_probs(predictions, proposals)
        refined_boxes = rois.box_predictor.predict_boxes(predictions, proposals)
    expected = zip(probabilities, refined_boxes, strict=True)
    _, scorers = mine.predict_with_scorers(images)
    for scorer, of_view, (expected_probability, expected_boxes) in zip(scorers, boxes, expected, strict=True):
        probability, refined = scorer(of_view)
        torch.testing.assert_close(probability.roll(-1, 1), expected_probability)
        torch.testing.assert_close(refined.flatten(1), expected_boxes)


def test_half_precision_moves_no_box() -> None:
    assert_half_precision_moves_no_box(ours())


def on_device() -> OnDevice:
    return run_on_device(ours())


def test_on_a_device_the_network_computes_the_same_and_hardly_ever_waits_for_it() -> None:
    with process() as executor:
        cost = executor.submit(on_device).result()
    assert_same_on_device(cost, {"loss": (3, 100), "predict": (4, 90)})
