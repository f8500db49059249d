"""Check that a method whose hooks return another form than they should is refused in the words of faults.md."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import instances

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.training.method_checks import (
    checked_keep,
    checked_state,
    checked_targets,
    describe_invalid_weights,
    weights_are_invalid,
)
from pais_bench.types import Batch, Instances, Targets, Unlabelled, View

FAULTS = (Path(__file__).parent.parent / "docs/reference/faults.md").read_text()
SECTION = (
    FAULTS.split("\n## Methods\n")[1].split("\n## ")[0].replace("methods/mine.py", "methods/test_method_checks.py")
)
DETECTIONS = instances([[x, x, x + 9, x + 9] for x in range(15)], scores=[1 - 0.06 * x for x in range(15)])


def build(**hooks: Any) -> MethodBase:
    """Return a method of this file with the given attributes and hooks."""
    built: MethodBase = type("Method", (MethodBase,), {"__module__": __name__, **hooks})(MethodOptions())
    return built


def best_half(detections: Instances) -> torch.Tensor:
    return detections.scores.argsort(descending=True)[: len(detections) // 2]


HOOKS: list[tuple[str, str, Any]] = [
    ("refine", "refines = True", lambda self, image, detections, progress: detections),
    ("prepare", "calibration_images = 0", lambda self, *shown: None),
    ("assign_weights_with_scorer", "needs_box_scorer = True", lambda self, detections, scorer: None),
    ("pretrained_teacher_steps", "needs_pretrained_teacher = True", 10),
]


@pytest.mark.parametrize(("hook", "switch", "value"), HOOKS)
def test_a_hook_that_nothing_would_call_is_refused(hook: str, switch: str, value: Any) -> None:
    with pytest.raises(BenchError) as refused:
        build(**{hook: value})
    assert f"has {hook}, which is not used without `{switch}`; set that too" in str(refused.value)
    assert str(refused.value).replace(hook, "refine").replace(switch, "refines = True") in SECTION
    name = switch.split()[0]
    parent = type(build(**{hook: value, name: 1}))
    assert type("Derived", (parent,), {name: getattr(MethodBase, name)}), "a method may leave out what its base does"


def test_a_method_may_decide_by_its_options_whether_a_hook_is_used() -> None:
    class Refining(MethodBase):
        def __init__(self, options: MethodOptions) -> None:
            super().__init__(options)
            self.refines = options.unlabelled_weight > 2

        def refine(self, image: torch.Tensor, detections: Instances, progress: float) -> Instances:
            return detections

    assert not Refining(MethodOptions()).refines and Refining(MethodOptions(unlabelled_weight=3)).refines
    with pytest.raises(BenchError, match="has pretrained_teacher_steps, which is not used"):

        class Guided(MethodBase):
            def __init__(self, options: MethodOptions) -> None:
                super().__init__(options)
                self.pretrained_teacher_steps = 10


def test_a_term_that_no_loss_has_is_refused_and_the_others_have_the_weights_of_the_base() -> None:
    with pytest.raises(BenchError) as refused:
        build(term_weights={"class": 0.5, "rpn_box": 0.0})
    assert str(refused.value) in SECTION
    fewer = build(term_weights={"class": 0.5})
    assert fewer.term_weights == {"mask_iou": 0.0, "semantic": 0.0, "class": 0.5}
    derived = type("Derived", (type(fewer),), {"term_weights": {"semantic": 1.0}})
    assert derived.term_weights == {"mask_iou": 0.0, "semantic": 1.0, "class": 0.5}
    mixin = type("Mixin", (MethodBase,), {})
    assert type("Both", (mixin, type(fewer)), {}).term_weights == fewer.term_weights
    assert MethodBase.term_weights == {"mask_iou": 0.0, "semantic": 0.0}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("pais", {"mask_iou": 0.0, "semantic": 0.0}),
        ("oracle", {"mask_iou": 1.0, "semantic": 1.0}),
        ("unbiased_teacher", {"box": 0.0, "proposal_box": 0.0, "mask_iou": 0.0, "semantic": 0.0}),
    ],
)
def test_the_weights_of_loss_terms_of_shipped_methods(name: str, weights: dict[str, float]) -> None:
    assert plugins.load("methods", name).Method.term_weights == weights


WEIGHTED = Targets.unweighted(DETECTIONS)
VIEW = (DETECTIONS.masks.shape[1], DETECTIONS.masks.shape[2])
ONE = WEIGHTED.class_weight


@pytest.mark.parametrize(
    ("targets", "fault"),
    [
        (None, "returned NoneType; give Targets of Instances"),
        (replace(WEIGHTED, class_weight=ONE[:8]), "class_weight is float32[8]; give float[15]"),
        (replace(WEIGHTED, class_weight=ONE.new_tensor(1)), "class_weight is float32[]; give float[15]"),
        (replace(WEIGHTED, mask_weight=ONE[:, None]), "mask_weight is float32[15, 1]; give float[15]"),
        (replace(WEIGHTED, box_weight=ONE.tolist()), "box_weight is list; give float[15]"),
        (replace(WEIGHTED, box_weight=ONE > 0), "box_weight is bool[15]; give float[15]"),
        (replace(WEIGHTED, box_weight=ONE.to("meta")), "box_weight is float32[15] on meta; give float[15]"),
        (replace(WEIGHTED, background=-0.5), "background is -0.5; give a number of at least 0"),
        (replace(WEIGHTED, background=None), "background is None; give a number of at least 0"),
        (replace(WEIGHTED, background=ONE), "background is float32[15]; give a number of at least 0"),
        (
            replace(WEIGHTED, instances=replace(DETECTIONS, masks=DETECTIONS.masks[:, ::2, ::2])),
            f"masks is bool[15, {VIEW[0] // 2}, {VIEW[1] // 2}]; give bool[15, {VIEW[0]}, {VIEW[1]}]",
        ),
        (replace(WEIGHTED, instances=replace(DETECTIONS, masks=DETECTIONS.masks.float())), "masks is float32[15, "),
    ],
)
def test_targets_of_another_form_are_refused(targets: Any, fault: str) -> None:
    with pytest.raises(BenchError) as refused:
        checked_targets(build(), targets, VIEW)
    assert fault in str(refused.value) and str(refused.value).startswith("methods/test_method_checks.py: ")


def test_targets_of_the_right_form_are_passed_on() -> None:
    empty = Targets.unweighted(DETECTIONS[:0])
    for targets in (WEIGHTED, empty, replace(WEIGHTED, background=lambda boxes: boxes[:, 0])):
        assert checked_targets(build(), targets, VIEW) is targets


@pytest.mark.parametrize(("value", "shown"), [(-0.5, "-0.5"), (float("nan"), "nan"), (float("inf"), "inf")])
def test_a_weight_that_is_negative_or_not_finite_is_named(value: float, shown: str) -> None:
    wrong = replace(WEIGHTED, mask_weight=ONE.index_fill(0, torch.tensor(3), value))
    view = View(torch.zeros(3, *VIEW), torch.eye(3, dtype=torch.float64))
    batch = Batch(7, [], [Unlabelled(image_id, view, view, None) for image_id in (1, 12)])
    assert not weights_are_invalid([]) and not weights_are_invalid([WEIGHTED, WEIGHTED])
    assert weights_are_invalid([WEIGHTED, wrong])
    message = describe_invalid_weights(build(), [WEIGHTED, wrong], batch)
    assert message.replace(shown, "-0.5") in SECTION


@pytest.mark.parametrize("value", [np.ones(3), np.float64(1), deque([1]), None])
def test_a_state_that_no_checkpoint_gives_back_is_refused(value: Any) -> None:
    with pytest.raises(BenchError) as refused:
        checked_state(build(state_dict=lambda self: {"thresholds": value}))
    assert str(refused.value).replace(f"a {type(value).__name__}", "a ndarray") in SECTION
    assert checked_state(build()) == {}


@pytest.mark.parametrize(
    ("returned", "form"),
    [
        (best_half, "int64[7]"),
        (lambda d: d.scores, "float32[15]"),
        (lambda d: (d.scores > 0.5)[:5], "bool[5]"),
        (lambda d: (d.scores > 0.5).any(), "bool[]"),
        (lambda d: (d.scores > 0.5).tolist(), "list"),
        (lambda d: (d.scores > 0.5).to("meta"), "bool[15] on meta"),
        (lambda d: None, "NoneType"),
    ],
)
def test_keep_that_returns_no_bool_of_each_detection_is_refused(
    returned: Callable[[Instances], Any], form: str
) -> None:
    keep = checked_keep(build(keep=lambda self, detections: returned(detections)))
    with pytest.raises(BenchError) as refused:
        keep(DETECTIONS)
    assert str(refused.value).replace(form, "int64[7]") in SECTION
    assert f"keep returned {form}; give bool[15]" in str(refused.value)


def test_keep_that_returns_a_bool_of_each_detection_is_passed_on() -> None:
    kept = checked_keep(build(keep=lambda self, detections: detections.scores > 0.5))(DETECTIONS)
    assert torch.equal(kept, DETECTIONS.scores > 0.5)
    assert checked_keep(build())(instances([])).tolist() == []
