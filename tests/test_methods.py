"""Do all methods keep the laws, and the published constants?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import instances

from pais_bench import plugins
from pais_bench.types import Instances, Method

NAMES = plugins.names("methods")


def method(name: str, **options: float) -> Method:
    plugin = plugins.load("methods", name)
    found: Method = plugin.Method(plugin.Options(**options))
    return found


@pytest.fixture
def teacher() -> Instances:
    torch.manual_seed(3)
    boxes = [[x, x, x + 9, x + 9] for x in range(20)]
    scores, quality = torch.rand(20).sort(descending=True).values, torch.rand(20)
    return instances(boxes, labels=[x % 3 for x in range(20)], scores=scores.tolist(), quality=quality.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_keeps_a_part_and_weighs_it_finite_and_not_below_zero(name: str, teacher: Instances) -> None:
    targets = method(name).weigh(teacher)
    assert len(targets.instances) <= len(teacher)
    for weight in (targets.class_weight, targets.mask_weight, targets.box_weight):
        assert weight.shape == (len(targets.instances),)
        assert torch.isfinite(weight).all() and (weight >= 0).all()
    assert math.isfinite(targets.background) and targets.background >= 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_gives_nothing_out(name: str) -> None:
    targets = method(name).weigh(instances([]))
    assert len(targets.instances) == len(targets.class_weight) == len(targets.mask_weight) == 0


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_order(name: str, teacher: Instances) -> None:
    order = torch.randperm(len(teacher), generator=torch.Generator().manual_seed(1))
    straight, shuffled = method(name).weigh(teacher), method(name).weigh(teacher[order])
    by_box = shuffled.instances.boxes[:, 0].argsort()
    assert torch.equal(straight.instances.boxes, shuffled.instances.boxes[by_box])
    assert torch.equal(straight.class_weight, shuffled.class_weight[by_box])
    assert torch.equal(straight.mask_weight, shuffled.mask_weight[by_box])


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_teacher_as_it_was(name: str, teacher: Instances) -> None:
    before = [teacher.boxes.clone(), teacher.scores.clone(), teacher.quality.clone(), teacher.masks.clone()]
    method(name).weigh(teacher)
    after = [teacher.boxes, teacher.scores, teacher.quality, teacher.masks]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# paper.md 9.1: v, K-Net w_class(s = v), K-Net w_mask(u = v), v^4
ORACLE = [
    (0.10, 0.001200, 0.000250, 0.000100),
    (0.30, 0.097200, 0.020250, 0.008100),
    (0.40, 0.307200, 0.064000, 0.025600),
    (0.45, 0.492075, 0.102516, 0.041006),
    (0.50, 0.750000, 0.156250, 0.062500),
    (0.60, 0.750000, 0.324000, 0.129600),
    (0.70, 0.750000, 0.600250, 0.240100),
    (0.80, 0.750000, 1.024000, 0.409600),
    (0.90, 0.750000, 1.640250, 0.656100),
    (0.95, 0.750000, 2.036266, 0.814506),
    (1.00, 0.750000, 2.500000, 1.000000),
]


@pytest.mark.parametrize(("value", "w_class", "w_mask", "power"), ORACLE)
def test_pais_has_the_constants_of_the_release(value: float, w_class: float, w_mask: float, power: float) -> None:
    seen = instances([[0, 0, 9, 9]], scores=[value], quality=[value])
    released = method("pais", score_threshold=0, quality_threshold=0).weigh(seen)
    assert released.class_weight.item() == pytest.approx(w_class, abs=5e-7)
    assert released.mask_weight.item() == pytest.approx(w_mask, abs=5e-7)
    assert released.background == pytest.approx(0.1225)
    figure = method(
        "pais", score_threshold=0, quality_threshold=0, class_scale=1, class_cap=1, mask_scale=1, background=1
    ).weigh(seen)
    assert figure.class_weight.item() == figure.mask_weight.item() == pytest.approx(power, abs=5e-7)


def test_pais_drops_what_is_exactly_at_a_threshold() -> None:
    seen = instances([[0, 0, 9, 9]] * 4, scores=[0.9, 0.9, 0.36, 0.35], quality=[0.31, 0.30, 0.9, 0.9])
    assert method("pais").weigh(seen).instances.scores.tolist() == pytest.approx([0.9, 0.36])


def test_pais_mask_weight_is_one_at_0795() -> None:
    seen = instances([[0, 0, 9, 9]], scores=[0.9], quality=[0.795271])
    assert method("pais").weigh(seen).mask_weight.item() == pytest.approx(1, abs=1e-5)


def test_mean_teacher_trusts_what_it_keeps(teacher: Instances) -> None:
    targets = method("mean_teacher", score_threshold=0.5).weigh(teacher)
    assert len(targets.instances) == int((teacher.scores > 0.5).sum())
    assert targets.class_weight.unique().tolist() == targets.mask_weight.unique().tolist() == [1.0]
    assert targets.background == 1.0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "supervised"])
def test_the_quality_branch_learns_from_labels_only(name: str) -> None:
    assert method(name).unlabelled and method(name).term_weights["quality"] == 0


def test_polite_teacher_filters_class_and_mask_apart() -> None:
    seen = instances([[0, 0, 9, 9]] * 3, scores=[0.9, 0.8, 0.3], quality=[0.9, 0.2, 0.9])
    targets = method("polite_teacher").weigh(seen)
    assert targets.class_weight.tolist() == [1, 1] and targets.mask_weight.tolist() == [1, 0]


def test_unbiased_teacher_learns_no_box_from_pseudo_labels() -> None:
    found = method("unbiased_teacher")
    assert found.term_weights["box"] == found.term_weights["proposal_box"] == 0 and found.unlabelled_weight == 4
    assert found.weigh(instances([[0, 0, 9, 9]] * 2, scores=[0.71, 0.7])).instances.scores.tolist() == [
        pytest.approx(0.71)
    ]


def test_guided_distillation_drops_specks() -> None:
    seen = instances([[0, 0, 9, 9], [0, 0, 2, 2]], scores=[0.9, 0.9])
    assert len(method("guided_distillation").weigh(seen).instances) == 1


@pytest.mark.parametrize("name", ["data_distillation", "noisy_boundary"])
def test_thresholds_find_as_many_objects_per_image_and_class_as_are_labelled(name: str) -> None:
    found: Any = method(name)
    box = [0, 0, 9, 9]
    seen = [instances([box] * 4, labels=[0, 0, 0, 1], scores=[0.9, 0.6, 0.3, 0.2])] * 5
    truth = [instances([box, box], labels=[0, 0]), instances([box, box, box], labels=[0, 0, 1])]
    found.calibrate(seen, truth, classes=3)
    assert 0.3 <= found.thresholds[0] < 0.6, "two of class 0 an image"
    assert len(found.thresholds) == 3 and found.thresholds[2] == 0.1, "nothing of class 2 anywhere"
    assert found.weigh(seen[0]).instances.scores.tolist() == pytest.approx([0.9, 0.6, 0.2])


def test_soft_teacher_learns_steady_boxes_and_asks_about_background() -> None:
    seen = instances([[0, 0, 20, 20], [30, 30, 50, 50]], labels=[0, 1], scores=[0.95, 0.7])
    found: Any = method("soft_teacher", jitters=20)

    def score(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bring every box near the first instance back to it, and leave the others where they are."""
        near = (boxes[:, :1] < 20).float()[:, :, None]
        home = near * torch.tensor([0.0, 0, 20, 20]) + (1 - near) * boxes[:, None]
        return torch.tensor([[0.8, 0.1, 0.1]]).expand(len(boxes), 3), home.expand(-1, 2, 4)

    torch.manual_seed(0)
    targets = found.weigh_scored(seen, score)
    assert targets.class_weight.tolist() == [1, 0] and targets.box_weight.tolist() == [1, 0]
    assert targets.background(torch.rand(5, 4)).tolist() == pytest.approx([0.8] * 5)
    assert len(found.weigh_scored(seen[:0], score).instances) == 0
