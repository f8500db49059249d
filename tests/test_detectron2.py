"""Is detectron2/mask_rcnn detectron2's Mask R-CNN?"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALLEST, instances, load_backend

from pais_bench.types import BenchError, Targets

PLUGIN = load_backend("detectron2/mask_rcnn")
from detectron2.modeling import build_model  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

CLASSES = 3


def options(**changes: Any) -> Any:
    return PLUGIN.Options(**{**SMALLEST["detectron2/mask_rcnn"], **changes})


def ours(**changes: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.Backend(CLASSES, options(**changes))


def stock(backend: Any) -> Any:
    """Give the same network as detectron2 itself builds it, with the weights of ours."""
    model = build_model(PLUGIN._config(CLASSES, options()))
    model.load_state_dict({name: v for name, v in backend.model.state_dict().items() if "quality" not in name})
    return model


def batch(*counts: int) -> tuple[list[torch.Tensor], list[Targets]]:
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand((3, 64, 80), generator=generator) for _ in counts]
    boxes = [[[4 + 7 * i, 3 + 5 * i, 30 + 8 * i, 28 + 6 * i] for i in range(count)] for count in counts]
    return images, [Targets.of_truth(instances(b, [i % 3 for i in range(len(b))], size=(64, 80))) for b in boxes]


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0), (5,)], ids=str)
def test_unit_weights_give_the_losses_and_gradients_of_detectron2(counts: tuple[int, ...]) -> None:
    mine = ours()
    theirs = stock(mine).train()
    images, targets = batch(*counts)
    torch.manual_seed(1)
    found = mine.loss(images, targets)
    torch.manual_seed(1)
    loaded = [{"image": mine._loaded(i), "instances": PLUGIN._truth(t)} for i, t in zip(images, targets, strict=True)]
    with EventStorage():
        losses = theirs(loaded)
    expected = {PLUGIN._TERMS[name]: loss for name, loss in losses.items()}
    assert set(found) == {*expected, "quality"}
    for term, loss in expected.items():
        torch.testing.assert_close(found[term], loss, rtol=1e-5, atol=1e-7, msg=term)
    sum(loss for term, loss in found.items() if term != "quality").backward()
    sum(expected.values()).backward()
    gradients = dict(mine.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_predictions_are_those_of_detectron2() -> None:
    mine = ours()
    theirs = stock(mine).eval().to(memory_format=torch.channels_last)  # so that not a digit differs
    images, _ = batch(0)
    with torch.no_grad():
        expected = theirs([{"image": mine._loaded(images[0])}])[0]["instances"]
    (found,) = mine.predict(images)
    assert len(found) > 0
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.labels, expected.pred_classes)
    assert torch.equal(found.boxes, expected.pred_boxes.tensor) and torch.equal(found.masks, expected.pred_masks)


def test_the_default_is_detectron2s_r50_fpn_and_a_narrow_branch() -> None:
    mine = PLUGIN.Backend(80, PLUGIN.Options())
    theirs = build_model(PLUGIN._config(80, PLUGIN.Options()))
    size = {module: sum(p.numel() for p in module.parameters()) for module in (mine, theirs)}
    branch = sum(p.numel() for name, p in mine.named_parameters() if "quality" in name)
    assert size[mine] - branch == size[theirs]
    assert 100_000 < branch < 1_000_000


@pytest.mark.parametrize("kind", ["pth", "pkl"])
def test_a_checkpoint_of_detectron2s_starts_the_whole_network(tmp_path: Path, kind: str) -> None:
    """model_final.pth is what its trainer writes, model_final.pkl what its model zoo has."""
    state = stock(ours()).state_dict()
    path = tmp_path / f"model_final.{kind}"
    if kind == "pth":
        torch.save({"model": state, "iteration": 3}, path)
    else:
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    torch.manual_seed(5)
    weights = PLUGIN.Backend(CLASSES, options(checkpoint=path)).model.state_dict()
    learnt = [name for name in state if "num_batches_tracked" not in name and name in weights]
    assert len(learnt) > 100 and all(torch.equal(weights[name], state[name]) for name in learnt)


def test_a_backbone_of_the_model_zoo_freezes_the_stem(tmp_path: Path) -> None:
    body = {n.removeprefix("backbone.bottom_up."): v for n, v in ours().model.state_dict().items() if "bottom_up" in n}
    arrays = {name: value.numpy() for name, value in body.items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))
    torch.manual_seed(5)
    started = PLUGIN.Backend(CLASSES, options(weights=path)).model.backbone.bottom_up
    assert torch.equal(started.res4[0].conv1.weight, body["res4.0.conv1.weight"])
    learning = {name for name, p in started.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("stem", "res2")) for name in learning) and "res3.0.conv1.weight" in learning


def test_a_checkpoint_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    state = stock(ours()).state_dict()
    name = "backbone.bottom_up.stem.conv1.weight"
    for file, changed in (
        ("renamed", {("trunk" if key == name else key): value for key, value in state.items()}),
        ("reshaped", {**state, name: state[name][:1]}),
    ):
        torch.save({"model": changed}, tmp_path / f"{file}.pth")
        with pytest.raises(BenchError, match=rf"{file}\.pth: these weights are of another network.*{name}"):
            PLUGIN.Backend(CLASSES, options(checkpoint=tmp_path / f"{file}.pth"))
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BenchError, match=r"torn\.pth: cannot be loaded"):
        PLUGIN.Backend(CLASSES, options(checkpoint=tmp_path / "torn.pth"))
    with pytest.raises(BenchError, match=r"absent\.pth: no such file"):
        PLUGIN.Backend(CLASSES, options(checkpoint=tmp_path / "absent.pth"))


def test_a_setting_that_detectron2_refuses_is_told_in_a_sentence() -> None:
    with pytest.raises(BenchError, match=r"overrides\.MODEL\.DEPT: detectron2 refuses it"):
        PLUGIN.Backend(CLASSES, options(overrides={"MODEL.DEPT": 18}))
    with pytest.raises(BenchError, match=r"overrides\.MODEL\.RESNETS\.DEPTH: detectron2 refuses it"):
        PLUGIN.Backend(CLASSES, options(overrides={"MODEL.RESNETS.DEPTH": "deep"}))
    with pytest.raises(BenchError, match="config nowhere.yaml: no such file"):
        PLUGIN.Backend(CLASSES, options(config="nowhere.yaml"))


def test_a_background_may_be_a_function_of_the_boxes() -> None:
    found = []
    for background in (0.25, lambda boxes: boxes.new_full((len(boxes),), 0.25)):
        mine = ours()
        images, targets = batch(3, 1)
        torch.manual_seed(1)
        found.append(mine.loss(images, [replace(target, background=background) for target in targets]))
    torch.testing.assert_close(found[0]["class"], found[1]["class"])
    assert found[0]["objectness"] < found[1]["objectness"], "proposals have a number for it, or 1"


def test_box_weights_scale_the_boxes_of_proposals_and_regions() -> None:
    mine = ours()
    images, targets = batch(3, 1)
    found = []
    for value in (1.0, 2.0):
        torch.manual_seed(1)
        weighed = [replace(t, box_weight=torch.full_like(t.box_weight, value)) for t in targets]
        found.append(copy.deepcopy(mine).loss(images, weighed))
    for term in ("box", "proposal_box"):
        torch.testing.assert_close(found[1][term], 2 * found[0][term])
    torch.testing.assert_close(found[1]["class"], found[0]["class"])


def test_scores_of_boxes_are_those_of_detectron2() -> None:
    mine = ours().eval()
    images, targets = batch(3, 1)
    boxes = [target.instances.boxes for target in targets]
    rois = mine.model.roi_heads
    with torch.no_grad():
        features = mine.model.backbone(mine.model.preprocess_image([{"image": mine._loaded(i)} for i in images]).tensor)
        pooled = rois.box_pooler([features[name] for name in rois.box_in_features], [Boxes(some) for some in boxes])
        predictions = rois.box_predictor(rois.box_head(pooled))
        proposals = [Instances((64, 80), proposal_boxes=Boxes(some)) for some in boxes]
        probabilities = rois.box_predictor.predict_probs(predictions, proposals)
        places = rois.box_predictor.predict_boxes(predictions, proposals)
    for (probability, refined), theirs, place in zip(mine.score(images, boxes), probabilities, places, strict=True):
        torch.testing.assert_close(probability.roll(-1, 1), theirs)
        torch.testing.assert_close(refined.flatten(1), place)
