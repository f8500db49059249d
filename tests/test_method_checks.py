"""Check that a method whose hooks return another form than they should is refused in the words of faults.md."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import instances

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.training.method_checks import checked_keep, checked_state
from pais_bench.types import Instances

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
