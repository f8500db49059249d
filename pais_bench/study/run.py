"""Hold exactly what may change a number of one training: a run of the grid."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from pais_bench.study.base import StrictConfig, rising
from pais_bench.study.split import SplitChoice

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]
Steps = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]
Share = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(gt=0)]
Options = dict[str, Any]
ModelCheckpoint = Literal["teacher-last", "student-last", "teacher-best", "student-best"]
"""Which network of a run predicts: a model, after its last step or at its best evaluation."""
BURN_IN = "burn_in"
"""Label in the place of a method's: of the steps before the unlabelled images are used."""


class InputOptions(StrictConfig):
    """Set the sizes of views in pixels: the shorter side is drawn from min_size_train, the longer is at most max_size.

    The defaults are those of the PAIS release on COCO.
    """

    min_size_train: Annotated[tuple[Side, Side], AfterValidator(rising)] = (400, 1200)
    max_size_train: Side = 1333
    min_size_test: Side = 800
    max_size_test: Side = 1333
    flip_prob: float = Field(default=0.5, ge=0, le=1)


class CutMix(StrictConfig):
    """Replace a rectangle of a strong view by one of its partner's, with its pseudo-labels [arXiv 1905.04899].

    The defaults are those of DEARLi [arXiv 2507.10118]. prob: probability that a view receives a rectangle.
    """

    kind: Literal["cutmix"]
    prob: float = Field(default=0.5, ge=0, le=1)
    area: Annotated[tuple[Share, Share], AfterValidator(rising)] = (0.02, 0.4)
    """Range of the rectangle's area, as a share of the product of the smaller height and the smaller width."""


class CopyPaste(StrictConfig):
    """Paste the instances of a strong view's partner on top of the view [arXiv 2012.07177].

    The defaults are those of S4M on Cityscapes [arXiv 2504.05301]. prob: probability that a view receives instances.
    """

    kind: Literal["copy_paste"]
    prob: float = Field(default=0.5, ge=0, le=1)
    min_pixels: int = Field(default=3000, ge=1)
    """Instances of fewer pixels are not pasted."""
    scale: Annotated[tuple[Factor, Factor], AfterValidator(rising)] | None = None
    """Range of an instance's scale, which is then pasted at a random place; None: unscaled, in its place."""


def _kind(values: Any) -> Any:
    return values.get("kind") if isinstance(values, dict) else getattr(values, "kind", None)


Mix = Annotated[
    Annotated[CutMix, Tag("cutmix")] | Annotated[CopyPaste, Tag("copy_paste")],
    Discriminator(_kind, custom_error_type="mix", custom_error_message="Give kind: cutmix, or kind: copy_paste"),
]
"""How the strong views of unlabelled images are mixed."""


class Training(StrictConfig):
    """Set the training loop. Batch sizes are totals over all ranks; the defaults are those of PAIS on K-Net."""

    steps: Steps = 180_000
    labelled_batch_size: int = Field(default=4, ge=1)
    unlabelled_batch_size: int = Field(default=8, ge=1)
    unlabelled_mix: Mix | None = None
    filter_empty_gt: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    backbone_lr_factor: float = Field(default=0.25, ge=0)
    grad_clip: float | None = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=1000, ge=0)
    warmup_factor: float = Field(default=0.001, gt=0, le=1)
    milestones: tuple[Steps, ...] = (120_000, 160_000)
    lr_decay: float = Field(default=0.1, gt=0, le=1)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    burn_in: int = Field(default=0, ge=0)
    seed: int | None = Field(default=None, ge=0)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    log_every: Steps = 50
    evaluate_every: Steps = 8000
    evaluate_images: int | None = Field(default=None, ge=1)
    checkpoint_every: Steps = 2000

    @field_validator("unlabelled_mix")
    @classmethod
    def _of_pairs(cls, mix: Mix | None, info: ValidationInfo) -> Mix | None:
        size = info.data.get("unlabelled_batch_size", 0)
        if mix and size % 2:
            raise ValueError(f"it mixes pairs of images, and unlabelled_batch_size is {size}; give an even one")
        return mix

    @property
    def unlabelled_together(self) -> int:
        """Return how many unlabelled images in a row have to be on one rank and in one micro-batch: pairs are mixed."""
        return 2 if self.unlabelled_mix else 1


class NetworkChoice(StrictConfig):
    """Name a network plugin and its options."""

    backend: str
    name: str
    label: Label
    options: Options = {}


class MethodChoice(StrictConfig):
    """Name a method plugin and its options."""

    name: str
    label: Label
    options: Options = {}


class Run(StrictConfig):
    """Hold exactly what may change a number of one training.

    teacher is the run whose trained network gives pseudo-labels, for methods with a pretrained teacher.
    """

    dataset: Label
    dataset_name: str
    dataset_options: Options
    split: SplitChoice
    network: NetworkChoice
    method: MethodChoice
    input: InputOptions
    training: Training
    teacher: Run | None = None

    @property
    def seed(self) -> int:
        """Return the seed of every draw: the fold, unless the training has another."""
        return self.split.fold if self.training.seed is None else self.training.seed

    @property
    def burn_in(self) -> Run | None:
        """Return the training of labelled images alone that this run begins with; None where it has none.

        Runs of one split that differ in what comes after it begin with the same.
        """
        steps = self.training.burn_in
        if not 0 < steps < self.training.steps:
            return None
        milestones = tuple(milestone for milestone in self.training.milestones if milestone < steps)
        unused = {"burn_in": 0, "unlabelled_mix": None}
        training = self.training.model_copy(update=unused | {"steps": steps, "milestones": milestones})
        method = MethodChoice(name="supervised", label=BURN_IN)
        return self.model_copy(update={"method": method, "training": training, "teacher": None})

    def derive_seed(self, *parts: int) -> int:
        """Return 32 bits that depend on the run's seed and on all parts, such as step and image id."""
        return int(np.random.SeedSequence(unsigned(self.seed, *parts)).generate_state(1)[0])

    @property
    def digest(self) -> str:
        """Return 8 hex digits that change with any value of the run that may change a weight or an evaluation.

        Neither the order of keys nor how often the training saves and logs changes them.
        """
        values = self.model_dump(mode="json", exclude={"teacher": True, "training": {"checkpoint_every", "log_every"}})
        values["teacher"] = self.teacher and self.teacher.digest
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def folder(self) -> PurePosixPath:
        """Return the folder of the run below the results folder.

        The digest keeps two studies that call different options by one name from overwriting each other's training.
        """
        network = f"{self.network.backend}-{self.network.label}"
        return PurePosixPath("runs", self.dataset, self.split.stem, network, f"{self.method.label}-{self.digest}")


def suffix(checkpoint: ModelCheckpoint) -> str:
    """Return what the names of a checkpoint's files end in: nothing for the teacher after its last step."""
    return "" if checkpoint == "teacher-last" else f"-{checkpoint}"


def unsigned(*parts: int) -> tuple[int, ...]:
    """Return integers as NumPy takes them for a seed: image ids may be negative, and then count from 2^64 down."""
    return tuple(part % 2**64 for part in parts)
