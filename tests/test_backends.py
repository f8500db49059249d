"""Check the laws of every network: what weights, background and options do to its losses, and its predictions."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALLEST, instances, load_backend, with_soft
from torch import nn
from torch._dynamo import lookup_backend

from pais_bench import geometry, plugins, provenance
from pais_bench.layers.losses import focal
from pais_bench.layers.noise_tolerant_head import NoiseTolerantPredictor
from pais_bench.layers.normalizers import CountRecorder, batch_normalizer
from pais_bench.types import TERMS, Instances, Targets

NAMES = plugins.names("backends")
OF_REGIONS = [name for name in NAMES if not plugins.lacks(name, "predict_with_scorers")]
CLASSES = 4
WITH_STUFF = "torchvision/knet with stuff"


def having(option: str) -> list[str]:
    """Return the networks that have an option."""
    return [name for name in NAMES if option in plugins.option_names("backends", name)]


def build(name: str, **options: Any) -> Any:
    plugin = load_backend(name)
    torch.manual_seed(0)
    return plugin.Backend(CLASSES, plugin.Options(**{**SMALLEST[name], **options}))


@pytest.fixture(params=[*NAMES, WITH_STUFF])
def backend(request: pytest.FixtureRequest) -> Any:
    if request.param != WITH_STUFF:
        return build(request.param)
    knet = load_backend("torchvision/knet")
    torch.manual_seed(0)
    return knet.Backend(CLASSES, knet.Options(**SMALLEST["torchvision/knet"]), stuff=[3])


@pytest.fixture
def images() -> list[torch.Tensor]:
    return [torch.rand((3, *size), generator=torch.Generator().manual_seed(1)) for size in ((64, 64), (72, 64))]


@pytest.fixture
def targets() -> list[Targets]:
    first = instances([[4, 6, 40, 44], [30, 30, 60, 62], [2, 40, 20, 60]], labels=[0, 3, 1], size=(64, 64))
    return [Targets.unweighted(first), Targets.unweighted(instances([[10, 10, 50, 60]], labels=[2], size=(72, 64)))]


def losses(backend: Any, images: list[torch.Tensor], targets: list[Targets]) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)  # the frameworks sample anchors and regions
    terms: dict[str, torch.Tensor] = backend.loss(images, targets, batch_normalizer)
    return terms


def weighted(targets: list[Targets], value: float, *weights: str) -> list[Targets]:
    return [replace(t, **{w: torch.full_like(getattr(t, w), value) for w in weights}) for t in targets]


def test_the_environment_of_this_python_has_what_it_pins() -> None:
    name = Path(sys.prefix).name.rsplit("-", 1)[0]
    if not (provenance.LOCKS / f"{name}.txt").exists():
        pytest.skip("an interpreter of your own is not held to the pins")
    provenance.require_versions(name)


def test_terms_are_of_the_closed_set_and_finite(backend: Any, images: Any, targets: Any) -> None:
    terms = losses(backend, images, targets)
    assert set(terms) <= set(TERMS) and {"class", "mask", "mask_iou"} <= set(terms)
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in terms.values())


def test_a_network_that_has_diverged_has_losses_that_say_so(backend: Any, images: Any, targets: Any) -> None:
    """Normalisers are collective: a rank that asks for fewer than the others would leave them waiting."""
    whole, diverged = CountRecorder(torch.device("cpu")), CountRecorder(torch.device("cpu"))
    backend.loss(images, targets, whole)
    with torch.no_grad():
        for parameter in backend.parameters():
            parameter.fill_(torch.nan)
    total = sum(backend.loss(images, targets, diverged).values())
    assert total.isnan()
    total.backward()
    assert len(diverged.counts) == len(whole.counts)


def without_gradient(backend: Any, images: Any, targets: Any) -> list[str]:
    sum(losses(backend, images, targets).values()).backward()  # type: ignore[union-attr]
    return [n for n, p in backend.named_parameters() if p.requires_grad and p.grad is None]


@pytest.fixture
def empty(images: Any) -> list[Targets]:
    return [Targets.unweighted(instances([], size=tuple(image.shape[-2:]))) for image in images]


def test_every_parameter_gets_a_gradient_even_without_instances(backend: Any, images: Any, empty: Any) -> None:
    assert without_gradient(backend, images, empty) == []


def test_mask_weights_scale_the_mask_loss_and_nothing_else(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)
    doubled = losses(backend, images, weighted(targets, 2.0, "mask_weight"))
    for term in plain:
        factor = 2.0 if term in ("mask", "dice", "rank") else 1.0
        torch.testing.assert_close(doubled[term], factor * plain[term])


def test_class_weights_and_background_scale_the_class_loss(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)
    positive = losses(copy.deepcopy(backend), images, [replace(t, background=0.0) for t in targets])
    negative = losses(copy.deepcopy(backend), images, weighted(targets, 0.0, "class_weight"))
    torch.testing.assert_close(positive["class"] + negative["class"], plain["class"])
    assert positive["class"] > 0 and negative["class"] > 0
    for term in plain.keys() - {"class"}:
        torch.testing.assert_close(negative[term], plain[term])


def test_weights_act_instance_by_instance(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)["mask"]
    parts = []
    for index in range(4):
        alone = weighted(targets, 0.0, "mask_weight")
        alone[index // 3].mask_weight[index % 3] = 1.0
        parts.append(losses(copy.deepcopy(backend), images, alone)["mask"])
    torch.testing.assert_close(sum(parts), plain)


def test_an_instance_of_weight_zero_teaches_neither_class_nor_mask(backend: Any, images: Any, targets: Any) -> None:
    weights = {w: torch.tensor([0.0, 1.0, 1.0]) for w in ("class_weight", "mask_weight", "box_weight")}
    muted = [replace(targets[0], **weights), targets[1]]
    other = replace(
        muted[0].instances,
        labels=torch.tensor([2, 3, 1]),
        masks=torch.cat((muted[0].instances.masks[:1].roll(5, 1), muted[0].instances.masks[1:])),
    )
    first = losses(copy.deepcopy(backend), images, muted)
    second = losses(copy.deepcopy(backend), images, [replace(muted[0], instances=other), targets[1]])
    for term in first.keys() - {"mask_iou", "semantic"}:  # these two are learnt from labels only, and have no weights
        torch.testing.assert_close(first[term], second[term])


def test_predictions_are_sorted_and_in_range(backend: Any, images: Any) -> None:
    for image, detections in zip(images, backend.predict(images), strict=True):
        height, width = image.shape[-2:]
        assert len(detections) > 0
        assert detections.masks.shape == (len(detections), height, width) and detections.masks.dtype == torch.bool
        assert detections.labels.min() >= 0 and detections.labels.max() < CLASSES
        assert (detections.scores.diff() <= 0).all()
        for values in (detections.scores, detections.mask_iou):
            assert values.min() >= 0 and values.max() <= 1
        assert (
            (detections.boxes >= 0).all()
            and (detections.boxes[:, 2] <= width).all()
            and (detections.boxes[:, 3] <= height).all()
        )


def confident(detections: Instances) -> torch.Tensor:
    """Keep the upper half of mask IoUs, because scores of an untrained network may all be 1; masks are not pasted."""
    assert detections.masks.shape == (len(detections), 0, 0) and detections.masks.dtype == torch.bool
    return detections.mask_iou >= detections.mask_iou.median()


def test_what_keep_drops_is_missing_and_the_rest_is_the_same(backend: Any, images: Any) -> None:
    for kept, every in zip(backend.predict(images, keep=confident), backend.predict(images), strict=True):
        unpasted = replace(every, masks=every.masks[:, :0, :0])
        expected = every[confident(unpasted)]
        assert 0 < len(kept) < len(every)
        for name in ("boxes", "labels", "masks", "scores", "mask_iou"):
            torch.testing.assert_close(getattr(kept, name), getattr(expected, name), msg=name)
    nothing = backend.predict(images, keep=lambda detections: detections.scores > 2)
    assert [one.masks.shape for one in nothing] == [(0, *image.shape[-2:]) for image in images]


def offers_soft(backend: Any) -> Any:
    """Skip a network without soft predictions, of which a test is below."""
    if not hasattr(backend, "predict_soft"):
        pytest.skip("it has no soft predictions")
    return backend


def certain(detections: Instances) -> torch.Tensor:
    """Keep the half with the most certain masks; soft masks are there before masks are pasted."""
    assert detections.masks.shape == (len(detections), 0, 0)
    means = detections.soft_masks.values.mean((1, 2))
    return means >= means.median()


def test_soft_predictions_are_the_predictions_before_they_are_cut(backend: Any, images: Any) -> None:
    for name, parameter in offers_soft(backend).named_parameters():
        if name.endswith(("mask_fcn_logits.bias", "mask_head.predictor.bias")):
            torch.nn.init.constant_(parameter, 0.5)  # the masks of a random Mask R-CNN are empty
    plain, soft = backend.predict(images), backend.predict_soft(images)
    for image, expected, found in zip(images, plain, soft, strict=True):
        for name in ("boxes", "labels", "masks", "scores", "mask_iou"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert expected.soft_masks is None and expected.class_probs is None
        assert found.class_probs.shape == (len(found), CLASSES) and found.soft_masks.values.shape[0] == len(found)
        own_class = found.class_probs.gather(1, found.labels[:, None])[:, 0]
        assert (own_class >= found.scores - 1e-6).all() and own_class.max() <= 1
        assert found.soft_masks.values.min() >= 0 and found.soft_masks.values.max() <= 1
        height, width = image.shape[-2:]
        points = geometry.cell_centres(torch.tensor([[0.0, 0, width, height]]), (height, width))
        drawn = geometry.sample_maps(found.soft_masks, points.expand(len(found), -1, -1, -1), outside=0.0) > 0.5
        assert found.masks.any() and ((drawn == found.masks).float().mean((1, 2)) > 0.9).all()


def test_keep_sees_soft_predictions(backend: Any, images: Any) -> None:
    every = offers_soft(backend).predict_soft(images)
    for kept, expected in zip(backend.predict_soft(images, keep=certain), every, strict=True):
        wanted = certain(replace(expected, masks=expected.masks[:, :0, :0]))
        assert len(kept) > 0 and set(kept.scores.tolist()) <= set(expected.scores.tolist())
        if len(kept) == int(wanted.sum()):  # else an empty mask was among those that keep saw
            assert torch.equal(kept.soft_masks.values, expected[wanted].soft_masks.values)
            assert torch.equal(kept.class_probs, expected[wanted].class_probs)


def pixel_weighted(targets: list[Targets], *values: float) -> list[Targets]:
    """Return targets with maps of one weight for each instance, which reach over the whole view."""
    weighted, left = [], list(values)
    for target in targets:
        number, (height, width) = len(target.instances), target.instances.masks.shape[-2:]
        soft = with_soft(target.instances, [left.pop(0) for _ in range(number)], CLASSES).soft_masks
        boxes = torch.tensor([[-99.0, -99, width + 99, height + 99]]).expand(number, -1)
        weighted.append(replace(target, pixel_weight=replace(soft, boxes=boxes)))
    return weighted


def test_pixel_weights_act_on_the_mask_loss_alone_and_instance_by_instance(
    backend: Any, images: Any, targets: Any
) -> None:
    plain = losses(copy.deepcopy(offers_soft(backend)), images, targets)
    one, doubled = (losses(copy.deepcopy(backend), images, pixel_weighted(targets, *[v] * 4)) for v in (1.0, 2.0))
    for term in plain:
        torch.testing.assert_close(one[term], plain[term])
        torch.testing.assert_close(doubled[term], (2 if term == "mask" else 1) * plain[term])
    parts = [losses(copy.deepcopy(backend), images, pixel_weighted(targets, *row))["mask"] for row in torch.eye(4)]
    torch.testing.assert_close(sum(parts), plain["mask"])


def test_pixel_weights_act_pixel_by_pixel(backend: Any, images: Any, targets: Any) -> None:
    """The losses of the left and the right half of the view are those of the whole."""
    plain = losses(copy.deepcopy(offers_soft(backend)), images, targets)["mask"]
    halves = []
    for first in (1.0, 0.0):
        halved = pixel_weighted(targets, *[1.0] * 4)
        for target in halved:
            target.pixel_weight.values[:, :, :2], target.pixel_weight.values[:, :, 2:] = first, 1 - first
        halves.append(losses(copy.deepcopy(backend), images, halved)["mask"])
    assert all(0.05 * plain < half < 0.95 * plain for half in halves)
    torch.testing.assert_close(sum(halves), plain)


def test_views_without_pixel_weights_have_weight_1_beside_one_with(backend: Any, images: Any, targets: Any) -> None:
    backend = offers_soft(backend)
    (first, second), ones = pixel_weighted(targets, *[2.0] * 4), pixel_weighted(targets, *[1.0] * 4)
    for without, with_ones in (([first, targets[1]], [first, ones[1]]), ([targets[0], second], [ones[0], second])):
        found, expected = (losses(copy.deepcopy(backend), images, pair)["mask"] for pair in (without, with_ones))
        torch.testing.assert_close(found, expected)


def test_targets_without_instances_may_have_pixel_weights(backend: Any, images: Any, empty: Any) -> None:
    terms = losses(offers_soft(backend), images, pixel_weighted(empty))
    assert all(torch.isfinite(loss) for loss in terms.values())


@pytest.mark.parametrize("training", [True, False])
def test_predict_restores_the_mode_and_takes_no_gradient(backend: Any, images: Any, training: bool) -> None:
    backend.train(training)
    detections = backend.predict(images)
    assert backend.training is training and not detections[0].scores.requires_grad


def test_state_round_trip_predicts_the_same(backend: Any, images: Any) -> None:
    other = copy.deepcopy(backend)
    for p in other.parameters():
        torch.nn.init.normal_(p, std=0.01)
    other.load_state_dict(backend.state_dict())
    for mine, theirs in zip(backend.predict(images), other.predict(images), strict=True):
        assert torch.equal(mine.scores, theirs.scores) and torch.equal(mine.masks, theirs.masks)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_a_focal_loss_has_a_gradient_where_the_class_is_sure(gamma: float) -> None:
    rows = torch.tensor([0.0, 1e-9, 2.0], requires_grad=True)
    focal(rows, gamma).sum().backward()
    assert rows.grad is not None and rows.grad.isfinite().all() and rows.grad[:2].abs().max() < 1e-5


@pytest.mark.parametrize("name", having("focal_gamma"))
def test_a_focal_class_loss_is_that_of_the_paper(name: str, images: Any, targets: Any) -> None:
    """With uniform class probabilities the loss is (1 - p)^gamma times the cross-entropy [arXiv 1708.02002]."""
    losses_of = {}
    for gamma in (0.0, 1.5):
        network = build(name, focal_gamma=gamma)
        (classifier,) = (m for m in network.modules() if getattr(m, "out_features", 0) == CLASSES + 1)
        torch.nn.init.zeros_(classifier.weight)
        torch.nn.init.zeros_(classifier.bias)
        losses_of[gamma] = losses(network, images, targets)
    torch.testing.assert_close(losses_of[1.5]["class"], (1 - 1 / (CLASSES + 1)) ** 1.5 * losses_of[0.0]["class"])
    for term in losses_of[0.0].keys() - {"class"}:
        torch.testing.assert_close(losses_of[1.5][term], losses_of[0.0][term])


@pytest.mark.parametrize("name", OF_REGIONS)
def test_box_weights_scale_the_box_losses_of_proposals_and_regions(name: str, images: Any, targets: Any) -> None:
    plain, doubled = (losses(build(name), images, weighted(targets, value, "box_weight")) for value in (1.0, 2.0))
    for term in plain.keys() - {"objectness"}:  # anchors of an object have its box weight too
        torch.testing.assert_close(doubled[term], (2 if term in ("box", "proposal_box") else 1) * plain[term])


@pytest.mark.parametrize("name", OF_REGIONS)
def test_a_background_may_be_a_function_of_the_boxes(name: str, images: Any, targets: Any) -> None:
    number, function = (
        losses(build(name), images, [replace(target, background=background) for target in targets])
        for background in (0.25, lambda boxes: boxes.new_full((len(boxes),), 0.25))
    )
    torch.testing.assert_close(number["class"], function["class"])
    assert number["objectness"] < function["objectness"], "a function does not apply to proposals, whose weight is 1"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_REGIONS])
def test_a_background_that_is_a_function_of_boxes_is_1_for_queries(name: str, images: Any, targets: Any) -> None:
    one, function = (
        losses(build(name), images, [replace(target, background=background) for target in targets])["class"]
        for background in (1.0, lambda boxes: boxes.new_zeros(len(boxes)))
    )
    assert one == function


@pytest.mark.parametrize("name", having("boundary_weight"))
def test_boundary_weights_act_on_the_mask_loss_alone(name: str, images: Any, targets: Any) -> None:
    plain, changed = (losses(build(name, boundary_weight=mean), images, targets) for mean in (0.0, 3.0))
    assert not torch.isclose(changed["mask"], plain["mask"]) and changed["mask"] > 0
    for term in plain.keys() - {"mask"}:
        torch.testing.assert_close(changed[term], plain[term])


@pytest.mark.parametrize("name", having("mask_head"))
def test_the_noise_tolerant_head_trains_both_its_maps(name: str, images: Any, targets: Any, empty: Any) -> None:
    network = build(name, mask_head="noise_tolerant")
    (predictor,) = (module for module in network.modules() if isinstance(module, NoiseTolerantPredictor))
    features = torch.rand(2, predictor.fine[0].in_channels, 14, 14)
    joined, coarse = predictor.train()(features)
    torch.testing.assert_close(predictor.eval()(features), joined)
    predictor.train()
    assert joined.shape[2:] == (28, 28) and coarse.shape[2:] == (14, 14)
    torch.nn.init.zeros_(
        predictor.join.weight[:, predictor.join.out_channels :]
    )  # the coarse map has a loss of its own
    losses(network, images, targets)["mask"].backward()
    for part in (predictor.fine, predictor.coarse):
        assert all(p.grad.abs().sum() > 0 for p in part.parameters())
    network = build(name, mask_head="noise_tolerant")
    assert without_gradient(network, images, empty) == []
    assert all(len(detections) and detections.masks.dtype == torch.bool for detections in network.predict(images))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OF_REGIONS)
def test_a_scorer_is_the_box_head_on_given_boxes(name: str, images: Any, targets: Any, training: bool) -> None:
    network = build(name).train(training)
    detections, scorers = network.predict_with_scorers(images, keep=confident)
    for mine, expected in zip(detections, network.predict(images, keep=confident), strict=True):
        assert torch.equal(mine.scores, expected.scores) and torch.equal(mine.masks, expected.masks)
    boxes = targets[0].instances.boxes
    for scorer, one in zip(scorers, (boxes, torch.zeros(0, 4)), strict=True):
        probability, refined = scorer(one)
        assert network.training is training and not probability.requires_grad
        assert probability.shape == (len(one), CLASSES + 1) and refined.shape == (len(one), CLASSES, 4)
        torch.testing.assert_close(probability.sum(1), torch.ones(len(one)))
    alone = network.predict_with_scorers(images[:1], pad_to=(72, 64))[1][0]
    torch.testing.assert_close(scorers[0](boxes), alone(boxes))  # a view's scorer has the features of the view
    (classifier,) = (m for m in network.modules() if getattr(m, "out_features", 0) == CLASSES + 1)
    torch.nn.init.constant_(classifier.bias, -99.0)
    torch.nn.init.constant_(classifier.bias[:1] if name.startswith("torchvision/") else classifier.bias[-1:], 99.0)
    assert (scorers[0](boxes)[0][:, 0] > 0.99).all(), "background is first"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("torchvision/")])
def test_a_compiled_network_has_the_same_names_losses_and_gradients(
    name: str, images: Any, targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by the tracer and not to machine code, which takes a minute; also in the copy that is the teacher."""
    compiled = nn.Module.compile
    passes = []

    def counting(graph: Any, inputs: Any) -> Any:
        passes.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(nn.Module, "compile", lambda module, **how: compiled(module, backend=counting, **how))
    plain, network = build(name), build(name, compile=True)
    assert network.state_dict().keys() == plain.state_dict().keys()
    terms, expected = losses(network, images, targets), losses(plain, images, targets)
    torch.testing.assert_close(terms, expected, rtol=1e-4, atol=1e-5)
    for one in (terms, expected):
        sum(one.values()).backward()  # type: ignore[union-attr]
    for (key, mine), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=key)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert (of_student := len(passes)) > 0
    teacher = copy.deepcopy(network)
    teacher.predict(images)
    assert len(passes) > of_student, "the teacher is compiled too"
