"""Check the laws that all methods keep, and their published constants."""

from __future__ import annotations

import copy
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sams
import torch
from tiny import choose, instances, with_soft
from torch import nn

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.layers.losses import weighted_mean
from pais_bench.layers.roi_losses import mask_losses
from pais_bench.methods import _sam
from pais_bench.methods._clip import clip_share, join_descriptions, read_descriptions
from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.study.run import Training
from pais_bench.training.pseudo_labels import progress_at
from pais_bench.training.student import Stream, normalize_mask_weights
from pais_bench.types import Instances, Targets

NAMES = plugins.names("methods")


@pytest.fixture(autouse=True)
def tiny_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sam, "load_sam", lambda folder: sams.any_network())


def method(name: str, **options: Any) -> MethodBase:
    plugin = plugins.load("methods", name)
    built: MethodBase = plugin.Method(plugin.Options(**choose(name, **options)["options"]))
    return built


LOOSE: dict[str, dict[str, Any]] = {
    "pl_dc": {"class_threshold": 0.2, "mask_threshold": 0.5},
    "mc_panda": {"score_threshold": 0.2, "certainty": 0.3},
    "s4m": {"score_threshold": 0.2, "pixels": 20},
}
"""Options with which the laws of all methods see weights of methods that keep hardly anything."""


def prepared(name: str) -> MethodBase:
    """Return a method as a training begins with it: it has seen the labels, and what its teacher detects."""
    tested = method(name, **LOOSE.get(name, {}))
    if tested.calibration_images is not None:
        box = [[0, 0, 9, 9]] * 3
        detections = [without_masks(instances(box, labels=[0, 1, 2], scores=[0.7, 0.5, 0.3]))]
        seen = detections if tested.needs_pretrained_teacher and tested.calibration_images else []
        tested.prepare(seen, [without_masks(instances(box, labels=[0, 1, 2]))], ["a", "b", "c"])
    return tested


def without_masks(detections: Instances) -> Instances:
    return replace(detections, masks=detections.masks.new_zeros((len(detections), 0, 0)))


def score_boxes(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand in for the box head of a teacher of three classes, which refines every box to the same one."""
    logits = boxes @ torch.linspace(-0.1, 0.1, 16).reshape(4, 4)
    return logits.softmax(1), boxes.new_tensor([0.0, 0, 9, 9]).expand(len(boxes), 3, 4)


def select(tested: MethodBase, detections: Instances) -> Instances:
    """Filter detections as a step does: keep is asked before there are masks."""
    if tested.needs_soft_predictions and detections.soft_masks is None:
        detections = with_soft(detections, detections.mask_iou.tolist())
    kept = tested.keep(without_masks(detections))
    assert kept.dtype == torch.bool and kept.shape == (len(detections),), "not one bool for each detection"
    return detections[kept]


def assign(tested: MethodBase, kept: Instances) -> Targets:
    """Weight detections as a step does, with a scorer of boxes where the method needs one."""
    if tested.needs_box_scorer:
        return tested.assign_weights_with_scorer(kept, score_boxes)
    return tested.assign_weights(kept)


def weigh(tested: MethodBase, detections: Instances) -> Targets:
    return assign(tested, select(tested, detections))


def weights_of(targets: Targets, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return every weight of targets by its name; that of the background at boxes, in their order."""
    names = ("class_weight", "mask_weight", "box_weight")
    weights = {name: getattr(targets, name) for name in names}
    if targets.pixel_weight is not None:
        weights["pixel_weight"] = targets.pixel_weight.values
    background = targets.background
    weights["background"] = background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)
    return weights


@pytest.fixture
def teacher() -> Instances:
    torch.manual_seed(3)
    boxes = [[x, x, x + 9, x + 9] for x in range(20)]
    scores, mask_iou = torch.rand(20).sort(descending=True).values, torch.rand(20)
    return instances(boxes, labels=[x % 3 for x in range(20)], scores=scores.tolist(), mask_iou=mask_iou.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_keeps_a_subset_with_finite_weights_of_at_least_zero(name: str, teacher: Instances) -> None:
    targets = weigh(prepared(name), teacher)
    assert len(targets.instances) <= len(teacher) and (len(targets.instances) > 0 or name not in LOOSE)
    for weight, values in weights_of(targets, teacher.boxes).items():
        number = len(teacher) if weight == "background" else len(targets.instances)
        assert len(values) == number and (values.dim() == 1 or weight == "pixel_weight"), weight
        assert torch.isfinite(values).all() and (values >= 0).all(), weight


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_gives_nothing_out(name: str) -> None:
    targets = weigh(prepared(name), instances([]))
    assert len(targets.instances) == 0
    assert all(len(values) == 0 for values in weights_of(targets, torch.zeros(0, 4)).values())


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_order(name: str, teacher: Instances) -> None:
    order = torch.randperm(len(teacher), generator=torch.Generator().manual_seed(1))
    tested = prepared(name)
    straight, shuffled = weigh(tested, teacher), weigh(tested, teacher[order])
    by_box, mine = (one.instances.boxes[:, 0].argsort() for one in (shuffled, straight))
    assert torch.equal(straight.instances.boxes[mine], shuffled.instances.boxes[by_box])
    expected, found = (weights_of(one, teacher.boxes) for one in (straight[mine], shuffled[by_box]))
    assert expected.keys() == found.keys()
    assert all(torch.equal(values, found[weight]) for weight, values in expected.items())


@pytest.mark.parametrize("name", NAMES)
def test_leaves_what_it_is_given_as_it_was(name: str, teacher: Instances) -> None:
    """The detections, and what it kept of them: the same tensors are in the log, and become targets."""
    tested, given = prepared(name), with_soft(teacher)
    before = copy.deepcopy(given)
    kept = select(tested, given)
    kept_before = copy.deepcopy(kept)
    assign(tested, kept)
    for one, expected in ((given, before), (kept, kept_before)):
        for field in ("boxes", "labels", "masks", "scores", "mask_iou", "class_probs"):
            assert torch.equal(getattr(one, field), getattr(expected, field)), field
        assert torch.equal(one.soft_masks.values, expected.soft_masks.values)  # type: ignore[union-attr]


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


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_iou_branch_learns_from_labels_only(name: str) -> None:
    assert method(name).uses_unlabelled is (name != "supervised"), "without them there is nothing to differ in"
    assert method(name).learns_held_out_labels is (name == "oracle"), "a method that sees them is no competitor"
    assert method(name).term_weights["mask_iou"] == method(name).learns_held_out_labels


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
    tested.prepare(detections, ground_truth, class_names=["a", "b", "c"])
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


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_goes_on_from_its_state_keeps_and_weights_as_one_that_never_stopped(
    name: str, teacher: Instances
) -> None:
    never, later = prepared(name), prepared(name)
    weak = replace(teacher, scores=teacher.scores * 0.2, mask_iou=teacher.mask_iou * 0.2)
    for _ in range(20):  # of which what follows the detections ends far from its start
        weigh(never, weak)
        never.end_step(torch.clone)
    saved = {key: value.clone() for key, value in never.state_dict().items()}
    if type(never).end_step is not MethodBase.end_step:
        assert type(never).state_dict is not MethodBase.state_dict, "it changes with the steps, and forgets that"
    if saved or type(never).load_state_dict is not MethodBase.load_state_dict:
        later.load_state_dict({key: value.clone() for key, value in saved.items()})
    for _ in range(2):
        assert saved.keys() == later.state_dict().keys()
        assert all(torch.equal(value, later.state_dict()[key]) for key, value in never.state_dict().items())
        mine, theirs = (weigh(one, teacher) for one in (later, never))
        assert torch.equal(mine.instances.boxes, theirs.instances.boxes)
        weights = weights_of(theirs, teacher.boxes)
        assert all(torch.equal(value, weights[key]) for key, value in weights_of(mine, teacher.boxes).items())
        for one in (later, never):
            one.end_step(torch.clone)


def panda(probabilities: list[float], certainty: float) -> Targets:
    """Weight one detection of score 0.98, whose mask has four cells of these probabilities, and one below a half."""
    detection = with_soft(instances([[0, 0, 9, 9]], scores=[0.98]))
    values = torch.tensor([[[*probabilities, 0.4]]])
    return weigh(
        method("mc_panda", certainty=certainty),
        replace(detection, soft_masks=replace(detection.soft_masks, values=values)),
    )


@pytest.mark.parametrize(("certainty", "weight"), [(0.97, 0.5), (0.95, 0.75), (0.9, 0.75)])
def test_mc_panda_weights_a_mask_by_its_share_of_certain_pixels(certainty: float, weight: float) -> None:
    targets = panda([0.999, 0.995, 0.97, 0.6], certainty)
    assert targets.mask_weight.tolist() == [weight] and targets.class_weight.tolist() == [1]


def test_mc_panda_divides_by_the_sum_of_weights_over_micro_batches() -> None:
    assert method("mc_panda").normalizes_mask_weights and not method("pais").normalizes_mask_weights
    targets = [panda([0.999, 0.995, 0.97, 0.6], certainty) for certainty in (0.97, 0.95)]
    streams = [Stream([], [target], (0, 0)) for target in targets]
    normalize_mask_weights(streams)
    weights = torch.cat([stream.targets[0].mask_weight for stream in streams])
    assert weighted_mean(torch.tensor([0.4, 0.2]), weights).item() == pytest.approx(0.28)
    nothing = [Stream([], [replace(targets[0], mask_weight=torch.zeros(1))], (0, 0)), Stream([], [], (0, 0))]
    normalize_mask_weights(nothing)
    assert nothing[0].targets[0].mask_weight.tolist() == [0]


def test_a_method_may_set_its_own_attributes_from_its_options(teacher: Instances) -> None:
    class Own(MethodBase):
        def __init__(self, options: MethodOptions) -> None:
            super().__init__(options)
            self.options, self.half = "its own", options.unlabelled_weight / 2

        def keep(self, detections: Instances) -> torch.Tensor:
            return detections.scores > self.half

    own, options = Own(MethodOptions(unlabelled_weight=0.8)), MethodOptions(unlabelled_weight=3)
    assert own.unlabelled_weight == 0.8 and own.options == "its own"
    assert own.keep(teacher).tolist() == (teacher.scores > 0.4).tolist()
    assert MethodBase(options).options is options
    assert not own.refines and own.refine(torch.zeros(3, 64, 64), teacher, 0.5) is teacher and own.state_dict() == {}


# PL-DC: logits of a mask of 2 x 2 cells, and what its formulas make of them.
LOGITS = torch.tensor([[2.0, -1.0], [0.5, 3.0]])


def pl_dc(**options: Any) -> Any:
    return method("pl_dc", **options)


def soft_mask(logits: torch.Tensor) -> Instances:
    """Return one detection whose soft mask is the sigmoid of logits."""
    detection = with_soft(instances([[0, 0, 9, 9]]))
    return replace(detection, soft_masks=replace(detection.soft_masks, values=logits.sigmoid()[None]))


def test_pl_dc_judges_a_mask_by_the_mean_probability_inside() -> None:
    _, certainty = pl_dc().qualities(soft_mask(LOGITS))
    assert certainty.item() == pytest.approx(0.818610, abs=1e-6)


def test_pl_dc_weights_pixels_by_their_certainty() -> None:
    targets = pl_dc().assign_weights(soft_mask(LOGITS))
    weights = targets.pixel_weight.values[0]
    assert torch.allclose(weights, torch.tensor([[0.761594, 0.462117], [0.244919, 0.905148]]), atol=1e-6)
    student, expected = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), (LOGITS > 0).float()
    one = torch.ones(1)
    plain, weighted = (
        mask_losses([student[None]], expected[None], one, 0.0, one * 0, lambda p: p.mean((1, 2)), 1, pixels)[0]
        for pixels in (None, weights[None])
    )
    assert plain.item() == pytest.approx(0.361650, abs=1e-6) and weighted.item() == pytest.approx(0.166999, abs=1e-6)
    assert targets.mask_weight.tolist() == targets.class_weight.tolist() == [1]
    assert pl_dc(pixel_weights=False).assign_weights(soft_mask(LOGITS)).pixel_weight is None


def test_pl_dc_keeps_what_reaches_both_thresholds_and_is_no_speck() -> None:
    boxes = [[0, 0, 9, 9]] * 4 + [[0, 0, 5, 1]]
    detections = instances(boxes, scores=[0.85, 0.84, 0.95, 0.95, 0.95])
    certainty = [0.95, 0.95, 0.91, 0.89, 0.95]
    kept = weigh(pl_dc(), with_soft(detections, certainty)).instances
    assert kept.scores.tolist() == pytest.approx([0.85, 0.95])
    better = replace(with_soft(detections, certainty), scores=detections.scores * 0.5)
    assert len(weigh(pl_dc(), better).instances) == 2, (
        "Mask2Former's score has the mask's certainty in it, and counts not"
    )


def test_pl_dc_gives_clip_less_say_as_training_goes_on() -> None:
    training = Training(steps=368_750, burn_in=20_000)
    steps = (20_000, 100_000, 200_000, 300_000, 368_750)
    shares = [clip_share(progress_at(step, training)) for step in steps]
    assert shares == pytest.approx([0.5, 0.437844, 0.237338, 0.046430, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("progress", "fused"), [(0.0, [0.4, 0.4, 0.2]), (0.5, [0.5, 0.35, 0.15]), (1.0, [0.6, 0.3, 0.1])]
)
def test_pl_dc_fuses_the_classes_of_clip_and_teacher(progress: float, fused: list[float]) -> None:
    tested = pl_dc(clip="weights.pt")
    assert tested.refines and not pl_dc().refines
    tested.clip = lambda image, masks: torch.tensor([[0.2, 0.5, 0.3]]).expand(len(masks), -1)
    teacher = replace(with_soft(instances([[0, 0, 9, 9]])), class_probs=torch.tensor([[0.6, 0.3, 0.1]]))
    refined = tested.refine(torch.zeros(3, 64, 64), teacher, progress)
    assert refined.class_probs[0].tolist() == pytest.approx(fused)
    assert refined.scores.item() == pytest.approx(max(fused)) and refined.labels.item() == 0
    tested.clip = lambda image, masks: torch.tensor([[0.0, 1.0, 0.0]]).expand(len(masks), -1)
    assert tested.refine(torch.zeros(3, 64, 64), teacher, 0.0).labels.item() == 1
    assert len(tested.refine(torch.zeros(3, 64, 64), teacher[:0], 0.0)) == 0


def test_descriptions_of_a_class_are_weighted_by_their_softmax() -> None:
    assert join_descriptions(torch.tensor([[10.0, 12.0, 8.0]])).item() == pytest.approx(11.701874, abs=1e-5)


def adaptive(low: float = 0.5, high: float = 0.85) -> Any:
    """Return a method whose labels are 700, 250 and 50 objects of three classes."""
    tested = pl_dc(class_threshold=high, mask_threshold=high, adaptive_from=(low, low))
    box = [[0, 0, 9, 9]]
    tested.prepare([], [instances(box * 1000, labels=[0] * 700 + [1] * 250 + [2] * 50, size=(9, 9))], ["a", "b", "c"])
    return tested


def test_adaptive_thresholds_start_by_the_share_of_labels_and_follow_all_detections() -> None:
    tested = adaptive()
    assert tested.thresholds.tolist() == [pytest.approx([0.745, 0.5875, 0.5175])] * 2
    tested = adaptive(low=0.85)
    detections = instances([[0, 0, 9, 9]] * 3, labels=[0, 0, 2], scores=[0.6, 0.2, 0.9])
    kept = tested.keep(with_soft(detections, [0.6, 0.6, 0.9]))
    assert kept.tolist() == [False, False, True]
    assert tested.thresholds.tolist() == [pytest.approx([0.85] * 3)] * 2, "it changes at the end of the step"
    tested.end_step(lambda seen: seen)
    of_class, of_mask = tested.thresholds.tolist()
    assert of_class == pytest.approx([0.84982, 0.85, 0.85002], abs=1e-6)
    assert of_mask == pytest.approx([0.8499, 0.85, 0.85002], abs=1e-6)


def test_adaptive_thresholds_do_not_depend_on_how_images_are_shared() -> None:
    """Two ranks end a step with the thresholds of one, which are those of moving image by image."""
    torch.manual_seed(0)
    images = [
        with_soft(instances([[0, 0, 9, 9]] * n, labels=[k % 3 for k in range(n)], scores=torch.rand(n).tolist()), 0.7)
        for n in (3, 1, 0, 5)
    ]
    alone, ranks = adaptive(), [adaptive(), adaptive()]
    by_image = alone.thresholds.clone()
    for index, image in enumerate(images):
        alone.keep(image)
        ranks[index % 2].keep(image)
        for label in image.labels.unique().tolist():
            for row, values in enumerate(alone.qualities(image)):
                by_image[row, label] += 0.0004 * (values[image.labels == label].mean() - by_image[row, label])
    seen = ranks[0].seen + ranks[1].seen
    for tested in (alone, *ranks):
        tested.end_step(lambda own, one=tested is alone: own if one else seen)
    torch.testing.assert_close(alone.thresholds, by_image, rtol=0, atol=1e-6)
    assert not torch.equal(by_image, adaptive().thresholds)
    for tested in ranks:
        torch.testing.assert_close(tested.thresholds, alone.thresholds, rtol=0, atol=1e-7)
    later = adaptive()
    later.load_state_dict(alone.state_dict())
    assert torch.equal(later.thresholds, alone.thresholds) and pl_dc().state_dict() == {}


class Trunk(nn.Module):
    """Stand in for a ConvNeXt: a map of one feature per channel at stride 16, and a head that flattens."""

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images, 16)

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled.flatten(1)


def open_clip(loaded: list[str]) -> ModuleType:
    """Return a stand-in for open_clip: an image is embedded by its mean colour, a text by the colour that it names."""
    visual = nn.Module()
    visual.trunk, visual.head = Trunk(), nn.Identity()
    network = nn.Module()
    network.visual, network.logit_scale = visual, nn.Parameter(torch.tensor(2.0))
    colours = ["red", "green", "blue"]
    network.encode_text = lambda tokens, normalize: torch.eye(3)[tokens]
    module = ModuleType("open_clip")
    module.create_model = lambda name, pretrained: loaded.append(pretrained) or network
    module.get_tokenizer = lambda name: lambda texts: torch.tensor([colours.index(text.split()[-1]) for text in texts])
    return module


def test_clip_classifies_what_lies_inside_of_each_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[str] = []
    monkeypatch.setitem(sys.modules, "open_clip", open_clip(loaded))
    weights = tmp_path / "clip.pt"
    weights.touch()
    tested = pl_dc(clip=weights)
    tested.prepare([], [], ["green", "blue", "red"])
    image = torch.zeros(3, 64, 64)
    image[0, :, :32], image[2, :, 32:] = 1, 0.5
    masks = instances([[0, 0, 32, 64], [34, 4, 40, 9], [0, 0, 64, 64]]).masks
    probs = tested.clip(image, masks)
    assert loaded == [str(weights)] and probs.argmax(1).tolist() == [2, 1, 2]
    torch.testing.assert_close(probs[:2, 0], torch.full((2,), 1 / (2 + math.e**math.e**2)), rtol=1e-3, atol=0)
    torch.testing.assert_close(probs.sum(1), torch.ones(3))
    assert tested.clip(image, masks[:0]).shape == (0, 3)


def test_what_clip_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="clip.pt: no such file; `clip` names the weights"):
        pl_dc(clip=tmp_path / "clip.pt").prepare([], [], ["red"])
    (tmp_path / "clip.pt").touch()
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(BenchError, match="clip: the package 'open_clip' is not installed"):
        pl_dc(clip=tmp_path / "clip.pt").prepare([], [], ["red"])
    texts = tmp_path / "texts.yaml"
    assert read_descriptions(None, ["red"]) == [["a photo of a red"]]
    texts.write_text("red: [a red one, one that is red]")
    assert read_descriptions(texts, ["red"]) == [["a red one", "one that is red"]]
    with pytest.raises(BenchError, match="texts.yaml: no list of descriptions of the class 'blue'"):
        read_descriptions(texts, ["red", "blue"])
