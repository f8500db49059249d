"""Check the laws that all methods keep, and their published constants."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import instances

from pais_bench import plugins
from pais_bench.methods.base import MethodBase
from pais_bench.types import Instances, Targets

NAMES = plugins.names("methods")


def method(name: str, **options: float) -> MethodBase:
    plugin = plugins.load("methods", name)
    built: MethodBase = plugin.Method(plugin.Options(**options))
    return built


def weigh(tested: MethodBase, detections: Instances) -> Targets:
    """Filter and weight detections as a step does: keep is asked before there are masks."""
    without_masks = replace(detections, masks=detections.masks.new_zeros((len(detections), 0, 0)))
    return tested.assign_weights(detections[tested.keep(without_masks)])


@pytest.fixture
def teacher() -> Instances:
    torch.manual_seed(3)
    boxes = [[x, x, x + 9, x + 9] for x in range(20)]
    scores, mask_iou = torch.rand(20).sort(descending=True).values, torch.rand(20)
    return instances(boxes, labels=[x % 3 for x in range(20)], scores=scores.tolist(), mask_iou=mask_iou.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_keeps_a_subset_with_finite_weights_of_at_least_zero(name: str, teacher: Instances) -> None:
    targets = weigh(method(name), teacher)
    assert len(targets.instances) <= len(teacher)
    for weight in (targets.class_weight, targets.mask_weight, targets.box_weight):
        assert weight.shape == (len(targets.instances),)
        assert torch.isfinite(weight).all() and (weight >= 0).all()
    assert math.isfinite(targets.background) and targets.background >= 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_gives_nothing_out(name: str) -> None:
    targets = weigh(method(name), instances([]))
    assert len(targets.instances) == len(targets.class_weight) == len(targets.mask_weight) == 0


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_order(name: str, teacher: Instances) -> None:
    order = torch.randperm(len(teacher), generator=torch.Generator().manual_seed(1))
    straight, shuffled = weigh(method(name), teacher), weigh(method(name), teacher[order])
    by_box = shuffled.instances.boxes[:, 0].argsort()
    assert torch.equal(straight.instances.boxes, shuffled.instances.boxes[by_box])
    assert torch.equal(straight.class_weight, shuffled.class_weight[by_box])
    assert torch.equal(straight.mask_weight, shuffled.mask_weight[by_box])


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_teacher_as_it_was(name: str, teacher: Instances) -> None:
    before = [teacher.boxes.clone(), teacher.scores.clone(), teacher.mask_iou.clone(), teacher.masks.clone()]
    weigh(method(name), teacher)
    after = [teacher.boxes, teacher.scores, teacher.mask_iou, teacher.masks]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# The constants of the PAIS release: v, K-Net w_class(s = v), K-Net w_mask(u = v), v^4
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
    detections = instances([[0, 0, 9, 9]], scores=[value], mask_iou=[value])
    released = weigh(method("pais", score_threshold=0, mask_iou_threshold=0), detections)
    assert released.class_weight.item() == pytest.approx(w_class, abs=5e-7)
    assert released.mask_weight.item() == pytest.approx(w_mask, abs=5e-7)
    assert released.background == pytest.approx(0.1225)
    bare = {"class_scale": 1, "class_cap": 1, "mask_scale": 1, "background": 1}
    figure = weigh(method("pais", score_threshold=0, mask_iou_threshold=0, **bare), detections)
    assert figure.class_weight.item() == figure.mask_weight.item() == pytest.approx(power, abs=5e-7)


def test_pais_drops_what_is_exactly_at_a_threshold() -> None:
    detections = instances([[0, 0, 9, 9]] * 4, scores=[0.9, 0.9, 0.36, 0.35], mask_iou=[0.31, 0.30, 0.9, 0.9])
    assert weigh(method("pais"), detections).instances.scores.tolist() == pytest.approx([0.9, 0.36])


def test_pais_mask_weight_is_one_at_0795() -> None:
    detections = instances([[0, 0, 9, 9]], scores=[0.9], mask_iou=[0.795271])
    assert weigh(method("pais"), detections).mask_weight.item() == pytest.approx(1, abs=1e-5)


def test_mean_teacher_weights_what_it_keeps_by_one(teacher: Instances) -> None:
    targets = weigh(method("mean_teacher", score_threshold=0.5), teacher)
    assert len(targets.instances) == int((teacher.scores > 0.5).sum())
    assert targets.class_weight.unique().tolist() == targets.mask_weight.unique().tolist() == [1.0]
    assert targets.background == 1.0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "supervised"])
def test_the_mask_iou_branch_learns_from_labels_only(name: str) -> None:
    assert method(name).uses_unlabelled and method(name).term_weights["mask_iou"] == 0


def test_polite_teacher_filters_class_and_mask_apart() -> None:
    detections = instances([[0, 0, 9, 9]] * 3, scores=[0.9, 0.8, 0.3], mask_iou=[0.9, 0.2, 0.9])
    targets = weigh(method("polite_teacher"), detections)
    assert targets.class_weight.tolist() == [1, 1] and targets.mask_weight.tolist() == [1, 0]


def test_unbiased_teacher_learns_no_box_from_pseudo_labels() -> None:
    tested = method("unbiased_teacher")
    assert tested.term_weights["box"] == tested.term_weights["proposal_box"] == 0 and tested.unlabelled_weight == 4
    assert weigh(tested, instances([[0, 0, 9, 9]] * 2, scores=[0.71, 0.7])).instances.scores.tolist() == [
        pytest.approx(0.71)
    ]


def test_guided_distillation_has_the_constants_of_its_release() -> None:
    tested = method("guided_distillation")
    detections = instances([[0, 0, 9, 9], [0, 0, 8, 10], [0, 0, 9, 9]], scores=[0.9, 0.9, 0.7])
    kept = weigh(tested, detections).instances
    assert kept.masks.flatten(1).sum(1).tolist() == [81], "more than 5 cells of 16 pixels, and a score above 0.7"
    assert tested.unlabelled_weight == 2


@pytest.mark.parametrize("name", ["data_distillation", "noisy_boundary"])
def test_thresholds_find_as_many_objects_per_image_and_class_as_are_labelled(name: str) -> None:
    tested: Any = method(name)
    box = [0, 0, 9, 9]
    detections = [instances([box] * 4, labels=[0, 0, 0, 1], scores=[0.9, 0.6, 0.3, 0.2])] * 5
    ground_truth = [instances([box, box], labels=[0, 0]), instances([box, box, box], labels=[0, 0, 1])]
    tested.fit_thresholds(detections, ground_truth, num_classes=3)
    assert 0.3 <= tested.thresholds[0] < 0.6, "two of class 0 an image"
    assert len(tested.thresholds) == 3 and tested.thresholds[2] == 0.1, "nothing of class 2 anywhere"
    assert weigh(tested, detections[0]).instances.scores.tolist() == pytest.approx([0.9, 0.6, 0.2])


def test_soft_teacher_learns_steady_boxes_and_scores_the_background() -> None:
    detections = instances([[0, 0, 20, 20], [30, 30, 50, 50]], labels=[0, 1], scores=[0.95, 0.7])
    tested: Any = method("soft_teacher", jitters=20)

    def score(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bring every box near the first instance back to it, and leave the others where they are."""
        near = (boxes[:, :1] < 20).float()[:, :, None]
        home = near * torch.tensor([0.0, 0, 20, 20]) + (1 - near) * boxes[:, None]
        return torch.tensor([[0.8, 0.1, 0.1]]).expand(len(boxes), 3), home.expand(-1, 2, 4)

    torch.manual_seed(0)
    targets = tested.assign_weights_with_scorer(detections, score)
    assert targets.class_weight.tolist() == [1, 0] and targets.box_weight.tolist() == [1, 0]
    assert targets.background(torch.rand(5, 4)).tolist() == pytest.approx([0.8] * 5)
    assert len(tested.assign_weights_with_scorer(detections[:0], score).instances) == 0
