"""Declare every hook of a method with a safe default; a method overrides what it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.errors import BenchError
from pais_bench.study.base import StrictConfig
from pais_bench.types import TERMS, BoxScorer, Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor

SWITCHES = {
    "refine": "refines = True",
    "prepare": "calibration_images = 0",
    "assign_weights_with_scorer": "needs_box_scorer = True",
    "pretrained_teacher_steps": "needs_pretrained_teacher = True",
}
"""By hook, what has to be set in a method for it to be called or read."""


class MethodOptions(StrictConfig):
    """Set what every semi-supervised method has."""

    unlabelled_weight: float = Field(default=1.0, ge=0)
    """Multiplies the whole loss of the unlabelled images."""


class MethodBase:
    """Turn a teacher's detections into weighted targets.

    options: what the study sets; a method that reads its own declares `options: Options` | uses_unlabelled: whether the
    unlabelled images are loaded at all | term_weights: factors of single loss terms of the unlabelled images, 1 where
    missing; mask_iou and semantic are learnt from labels only; a class has those of its base that it does not name |
    network_options: options that the method sets of the network | needs_pretrained_teacher: whether the study has to
    name a trained run, whose network is the teacher of the first pretrained_teacher_steps | calibration_images:
    unlabelled images whose detections `prepare` sees; None: it is not called | needs_box_scorer: whether the network
    has to offer `predict_with_scorers` | needs_soft_predictions:
    whether it has to offer `predict_soft`, so that detections have soft masks and class probabilities; not together
    with a box scorer | refines: whether `refine` is called | normalizes_mask_weights: whether the mask losses of
    unlabelled images are divided by the sum of the mask weights of the step instead of their number |
    learns_held_out_labels: whether the labels that a study holds out take the place of the teacher's detections; `keep`
    is not called, and unlabelled images without labels are in no batch.
    """

    uses_unlabelled: bool = True
    term_weights: Mapping[str, float] = {"mask_iou": 0.0, "semantic": 0.0}
    network_options: Mapping[str, object] = {}
    needs_pretrained_teacher: bool = False
    needs_box_scorer: bool = False
    needs_soft_predictions: bool = False
    refines: bool = False
    normalizes_mask_weights: bool = False
    learns_held_out_labels: bool = False
    pretrained_teacher_steps: float = 0
    calibration_images: int | None = None

    def __init_subclass__(cls) -> None:
        """Complete the weights of loss terms; raise BenchError for an unknown term, or a hook that nothing calls."""
        super().__init_subclass__()
        _complete_term_weights(cls)
        _refuse_unused_hooks(cls)

    def __init__(self, options: MethodOptions) -> None:
        self.options = options
        self.unlabelled_weight = options.unlabelled_weight

    def keep(self, detections: Instances) -> Tensor:
        """Return bool[N]: which of the teacher's detections the method wants; by default all.

        It is asked before masks are pasted: detections.masks is bool[N,0,0], and dropped masks cost nothing.
        """
        return detections.labels >= 0

    def refine(self, image: Tensor, detections: Instances, progress: float) -> Instances:
        """Change the labels, scores or masks of the detections that were kept in a weak view f32[3,H,W].

        progress: the share 0..1 of the steps with unlabelled images that are done. What it draws is seeded by the
        image. Where masks are other ones, boxes become the tight ones of all masks. By default nothing is changed.
        """
        return detections

    def assign_weights(self, detections: Instances) -> Targets:
        """Weight the detections that were kept, by default 1 each; drop those of which only the masks tell."""
        return Targets.unweighted(detections)

    def assign_weights_with_scorer(self, detections: Instances, scorer: BoxScorer) -> Targets:
        """Weight detections with the help of the teacher's box head; by default without it."""
        return self.assign_weights(detections)

    def prepare(
        self, detections: Sequence[Instances], ground_truth: Sequence[Instances], class_names: Sequence[str]
    ) -> None:
        """Fit thresholds to a pretrained teacher's detections on unlabelled images and the labels of labelled ones.

        Without a pretrained teacher there are labels alone. ground_truth is in original pixels. The masks of both are
        bool[N,0,0]. class_names are in the order of labels. Called whenever a training starts or continues; the state
        of a checkpoint is loaded afterwards.
        """

    def describe_cost(self, images: int) -> str:
        """Return in a few words what the method adds to the cost of its trainings, for `pais-bench plan`.

        images: the unlabelled images that they have yet to go through. By default it adds nothing.
        """
        return ""

    def end_step(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Update the method's state by what it has seen in a step, the same on all ranks; by default there is none.

        sum_over_ranks sums a tensor over ranks. Collective.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of the method; by default nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the state of a checkpoint of the same run; not called after a burn-in, which has none."""


def method_file(method: type[MethodBase]) -> str:
    """Return the file of a method's class as an error names it."""
    return f"methods/{method.__module__.rpartition('.')[2]}.py"


def _complete_term_weights(method: type[MethodBase]) -> None:
    """Add the weights of the base to those that a class has of its own."""
    if "term_weights" not in vars(method):
        return
    own, inherited, *_ = (vars(one)["term_weights"] for one in method.__mro__ if "term_weights" in vars(one))
    unknown = sorted(own.keys() - set(TERMS))
    if unknown:
        terms = ", ".join(TERMS)
        raise BenchError(f"{method_file(method)}: term_weights: no loss has the term '{unknown[0]}'; known: {terms}")
    method.term_weights = {**inherited, **own}


def _refuse_unused_hooks(method: type[MethodBase]) -> None:
    """Raise BenchError for a hook without its switch, which the class or one of its functions has to name."""
    below = [vars(one) for one in method.__mro__ if one not in MethodBase.__mro__]
    functions = [value for one in below for value in one.values() if isinstance(value, FunctionType)]
    named = {name for function in functions for name in function.__code__.co_names}  # as in self.refines = ...
    own = {name for one in below for name in one}
    for hook, switch in SWITCHES.items():
        changed = hook in own or (hook in named and not callable(getattr(MethodBase, hook)))
        if changed and switch.split()[0] not in own | named:
            raise BenchError(f"{method_file(method)}: has {hook}, which is not used without `{switch}`; set that too")
