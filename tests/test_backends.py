"""Is every network the framework's own, with weights that mean what they say?"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALLEST, instances, load_backend

from pais_bench import environments, plugins, provenance
from pais_bench.noise_tolerant import NoiseTolerantPredictor
from pais_bench.types import TERMS, Targets

NAMES = plugins.names("backends")
OF_REGIONS = [name for name in NAMES if name.endswith("mask_rcnn")]
CLASSES = 4


def build(name: str, **options: Any) -> Any:
    plugin = load_backend(name)
    torch.manual_seed(0)
    return plugin.Backend(CLASSES, plugin.Options(**{**SMALLEST[name], **options}))


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture
def images() -> list[torch.Tensor]:
    return [torch.rand((3, *size), generator=torch.Generator().manual_seed(1)) for size in ((64, 64), (72, 64))]


@pytest.fixture
def targets() -> list[Targets]:
    first = instances([[4, 6, 40, 44], [30, 30, 60, 62], [2, 40, 20, 60]], labels=[0, 3, 1], size=(64, 64))
    return [Targets.of_truth(first), Targets.of_truth(instances([[10, 10, 50, 60]], labels=[2], size=(72, 64)))]


def losses(backend: Any, images: list[torch.Tensor], targets: list[Targets]) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)  # the frameworks sample anchors and regions
    found: dict[str, torch.Tensor] = backend.loss(images, targets)
    return found


def weighed(targets: list[Targets], value: float, *weights: str) -> list[Targets]:
    return [replace(t, **{w: torch.full_like(getattr(t, w), value) for w in weights}) for t in targets]


def test_the_environment_of_this_python_has_what_it_pins() -> None:
    name = Path(sys.prefix).name.rsplit("-", 1)[0]
    if not (environments.LOCKS / f"{name}.txt").exists():
        pytest.skip("an interpreter of your own is not held to the pins")
    provenance.require_versions(name)


def test_terms_are_of_the_closed_set_and_finite(backend: Any, images: Any, targets: Any) -> None:
    found = losses(backend, images, targets)
    assert set(found) <= set(TERMS) and {"class", "mask", "quality"} <= set(found)
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in found.values())


def without_gradient(backend: Any, images: Any, targets: Any) -> list[str]:
    sum(losses(backend, images, targets).values()).backward()  # type: ignore[union-attr]
    return [n for n, p in backend.named_parameters() if p.requires_grad and p.grad is None]


@pytest.fixture
def empty(images: Any) -> list[Targets]:
    return [Targets.of_truth(instances([], size=tuple(image.shape[-2:]))) for image in images]


def test_every_parameter_gets_a_gradient_even_without_instances(backend: Any, images: Any, empty: Any) -> None:
    assert without_gradient(backend, images, empty) == []


def test_mask_weights_scale_the_mask_loss_and_nothing_else(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)
    doubled = losses(backend, images, weighed(targets, 2.0, "mask_weight"))
    for term in plain:
        factor = 2.0 if term in ("mask", "dice") else 1.0
        torch.testing.assert_close(doubled[term], factor * plain[term])


def test_class_weights_and_background_scale_the_class_loss(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)
    positive = losses(copy.deepcopy(backend), images, [replace(t, background=0.0) for t in targets])
    negative = losses(copy.deepcopy(backend), images, weighed(targets, 0.0, "class_weight"))
    torch.testing.assert_close(positive["class"] + negative["class"], plain["class"])
    assert positive["class"] > 0 and negative["class"] > 0
    for term in plain.keys() - {"class"}:
        torch.testing.assert_close(negative[term], plain[term])


def test_weights_act_instance_by_instance(backend: Any, images: Any, targets: Any) -> None:
    plain = losses(copy.deepcopy(backend), images, targets)["mask"]
    parts = []
    for chosen in range(4):
        alone = weighed(targets, 0.0, "mask_weight")
        alone[chosen // 3].mask_weight[chosen % 3] = 1.0
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
    for term in first.keys() - {"quality", "semantic"}:  # these two are for ground truth, and have no weights
        torch.testing.assert_close(first[term], second[term])


def test_predictions_are_sorted_and_in_range(backend: Any, images: Any) -> None:
    for image, found in zip(images, backend.predict(images), strict=True):
        height, width = image.shape[-2:]
        assert len(found) > 0
        assert found.masks.shape == (len(found), height, width) and found.masks.dtype == torch.bool
        assert found.labels.min() >= 0 and found.labels.max() < CLASSES
        assert (found.scores.diff() <= 0).all()
        for values in (found.scores, found.quality):
            assert values.min() >= 0 and values.max() <= 1
        assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()


@pytest.mark.parametrize("training", [True, False])
def test_predict_restores_the_mode_and_takes_no_gradient(backend: Any, images: Any, training: bool) -> None:
    backend.train(training)
    found = backend.predict(images)
    assert backend.training is training and not found[0].scores.requires_grad


def test_state_round_trip_predicts_the_same(backend: Any, images: Any) -> None:
    other = copy.deepcopy(backend)
    for p in other.parameters():
        torch.nn.init.normal_(p, std=0.01)
    other.load_state_dict(backend.state_dict())
    for mine, theirs in zip(backend.predict(images), other.predict(images), strict=True):
        assert torch.equal(mine.scores, theirs.scores) and torch.equal(mine.masks, theirs.masks)


@pytest.mark.parametrize("name", OF_REGIONS)
def test_a_focal_class_loss_is_that_of_the_paper(name: str, images: Any, targets: Any) -> None:
    """A network to which all classes are equally likely pays (1 - p)^gamma of its cross-entropy [arXiv 1708.02002]."""
    found = {}
    for gamma in (0.0, 1.5):
        network = build(name, focal_gamma=gamma)
        (classifier,) = (m for m in network.modules() if getattr(m, "out_features", 0) == CLASSES + 1)
        torch.nn.init.zeros_(classifier.weight)
        torch.nn.init.zeros_(classifier.bias)
        found[gamma] = losses(network, images, targets)
    torch.testing.assert_close(found[1.5]["class"], (1 - 1 / (CLASSES + 1)) ** 1.5 * found[0.0]["class"])
    for term in found[0.0].keys() - {"class"}:
        torch.testing.assert_close(found[1.5][term], found[0.0][term])


@pytest.mark.parametrize("name", OF_REGIONS)
def test_boundary_weights_act_on_the_mask_loss_alone(name: str, images: Any, targets: Any) -> None:
    plain, weighted = (losses(build(name, boundary_weight=mean), images, targets) for mean in (0.0, 3.0))
    assert not torch.isclose(weighted["mask"], plain["mask"]) and weighted["mask"] > 0
    for term in plain.keys() - {"mask"}:
        torch.testing.assert_close(weighted[term], plain[term])


@pytest.mark.parametrize("name", OF_REGIONS)
def test_the_noise_tolerant_head_trains_both_its_maps(name: str, images: Any, targets: Any, empty: Any) -> None:
    network = build(name, mask_head="noise_tolerant")
    (predictor,) = (module for module in network.modules() if isinstance(module, NoiseTolerantPredictor))
    features = torch.rand(2, predictor.fine[0].in_channels, 14, 14)
    joined, coarse = predictor.train()(features)
    torch.testing.assert_close(predictor.eval()(features), joined)
    predictor.train()
    assert joined.shape[2:] == (28, 28) and coarse.shape[2:] == (14, 14)
    torch.nn.init.zeros_(predictor.join.weight[:, predictor.join.out_channels :])  # the coarse map pays for itself
    losses(network, images, targets)["mask"].backward()
    for part in (predictor.fine, predictor.coarse):
        assert all(p.grad.abs().sum() > 0 for p in part.parameters())
    network = build(name, mask_head="noise_tolerant")
    assert without_gradient(network, images, empty) == []
    assert all(len(found) and found.masks.dtype == torch.bool for found in network.predict(images))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OF_REGIONS)
def test_score_is_what_the_box_head_thinks_of_boxes(name: str, images: Any, targets: Any, training: bool) -> None:
    network = build(name).train(training)
    none = torch.zeros(0, 4)
    found = network.score(images, [targets[0].instances.boxes, none])
    assert network.training is training
    for (probability, boxes), count in zip(found, (3, 0), strict=True):
        assert probability.shape == (count, CLASSES + 1) and boxes.shape == (count, CLASSES, 4)
        assert not probability.requires_grad
        torch.testing.assert_close(probability.sum(1), torch.ones(count))
    (classifier,) = (m for m in network.modules() if getattr(m, "out_features", 0) == CLASSES + 1)
    torch.nn.init.constant_(classifier.bias, -99.0)
    torch.nn.init.constant_(classifier.bias[:1] if name.startswith("torchvision/") else classifier.bias[-1:], 99.0)
    assert (network.score(images[:1], [targets[0].instances.boxes])[0][0][:, 0] > 0.99).all(), "background is first"
