"""Check the training loop: every method on every network, an exact resume, checkpoints and the log."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sams
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from tiny import SMALLEST, choose, load_backend, needs, study, write_study
from torch.amp import GradScaler

from pais_bench import plugins, provenance
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.methods import _sam, data_distillation
from pais_bench.methods.base import MethodBase, MethodOptions
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.study.run import Run, Training
from pais_bench.study.study import Study
from pais_bench.training import checkpoint, networks, optim, pseudo_labels, trainer
from pais_bench.training.preemption import Interrupted
from pais_bench.training.step import train_step, weighted_total
from pais_bench.training.student import Stream, StudentInput, StudentLosses
from pais_bench.training.trainer import Trainer
from pais_bench.types import Instances, Targets

METHODS = plugins.names("methods")
NETWORKS = plugins.names("backends")
OPTIONS: dict[str, dict[str, Any]] = {
    "mean_teacher": {"score_threshold": 0.0},
    "pais": {"score_threshold": 0.0, "mask_iou_threshold": 0.0},
    "soft_teacher": {"score_threshold": 0.0, "foreground_threshold": 0.0},
    "polite_teacher": {"score_threshold": 0.0},
    "unbiased_teacher": {"score_threshold": 0.0},
    "guided_distillation": {"score_threshold": 0.0, "guided_steps": 1},
    "data_distillation": {"calibration_images": 3},
    "noisy_boundary": {"calibration_images": 3},
    "pl_dc": {"class_threshold": 0.0, "mask_threshold": 0.0, "adaptive_from": [0.0, 0.0]},
    "mc_panda": {"score_threshold": 0.0, "certainty": 0.1},
    "s4m": {"score_threshold": 0.0, "pixels": 0, "guided_steps": 1},
    "sam_refined": {"score_threshold": 0.0, "mask_iou_threshold": 0.0},
}
"""With which a hardly trained teacher is learnt from; a method without an entry has its defaults."""
CHOICES = {name: choose(name, **OPTIONS.get(name, {})) for name in METHODS}
CORE = ("supervised", "pais")
LACKING = {(n, m): needs(m, CHOICES[m], n) for n in NETWORKS for m in METHODS if needs(m, CHOICES[m], n)}
PAIRS = [(network, name) for network in NETWORKS for name in METHODS if (network, name) not in LACKING]
PLACED: dict[str, Path] = {}
"""Where place has trained a run, by its digest."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("shapes")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=40, val=6, size=64), None).prepare(folder, "shapes")
    return {subset: Store.open(folder, subset) for subset in ("train", "val")}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(stores: dict[str, Store], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Trainer]:
    """Return a function that trains a run without interruption, once for all tests."""
    trained: dict[str, Trainer] = {}

    def train(run: Run) -> Trainer:
        if run.digest not in trained:
            trained[run.digest] = build_trainer(run, stores, tmp_path_factory.mktemp("whole"), best=["teacher"])
            trained[run.digest].fit()
        return trained[run.digest]

    return train


@pytest.fixture(autouse=True)
def tiny_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sam, "load_sam", lambda folder: sams.any_network())


def a_run(method: str = "pais", network: str = "torchvision/mask_rcnn", **training: Any) -> Run:
    load_backend(network)
    backend, name = network.split("/")
    values = study(
        networks={name: {"backend": backend, "options": SMALLEST[network]}},
        methods=CHOICES,
    )
    values["training"] |= training
    return Study(**values).run(10, 1, name, method)


def with_burn_in(method: str, network: str) -> Run:
    """Return a run whose first half is a burn-in, and whose one checkpoint is that of its end."""
    return a_run(method, network, burn_in=2, checkpoint_every=4)


def build_trainer(
    run: Run,
    stores: dict[str, Store],
    folder: Path,
    best: Sequence[str] = (),
    scaler: GradScaler | None = None,
    burn_in: str = "",
) -> Trainer:
    """Build a trainer in a folder; the run of its pretrained teacher, if any, is trained first, below that folder.

    A scaler brings half precision to a CPU, for which Fabric takes bfloat16 and no scaler.
    """
    folder.mkdir(exist_ok=True)
    if run.teacher and not (folder / run.teacher.folder).exists():
        place(run.teacher, stores, folder / run.teacher.folder)
    half = [MixedPrecision("16-mixed", "cpu", scaler)] if scaler else None
    fabric = Fabric(accelerator="cpu", devices=1, plugins=half, precision=None if half else run.training.precision)
    fabric.launch()
    split = draw_split(stores["train"], run.dataset, run.split)
    return Trainer(run, stores, split, folder, fabric, results=folder, best=best, burn_in=burn_in)


def place(run: Run, stores: dict[str, Store], folder: Path, best: Sequence[str] = ()) -> None:
    """Make a folder with a run that others begin with; it is trained once for all tests."""
    if source := PLACED.get(run.digest):
        shutil.copytree(source, folder)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        build_trainer(run, stores, folder, best).fit()
        PLACED[run.digest] = folder


def stop_after(step: int, trainer: Trainer) -> None:
    """Train, and stop after a step as a signal does."""

    def stop(line: dict[str, Any]) -> None:
        trainer.stopping = line["step"] == step

    with pytest.raises(Interrupted, match=f"stopped after step {step} of {trainer.run.training.steps}"):
        trainer.fit(progress=stop)


def tear_log(folder: Path) -> None:
    """Leave a torn line in a log, as a kill does."""
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "st')


def assert_same_end(mine: Trainer, theirs: Trainer) -> None:
    """Compare networks, optimiser, log and what the methods have learnt bit for bit; the last in the checkpoint too."""
    assert mine.step == theirs.step == mine.run.training.steps
    for name in ("student", "teacher"):
        own, expected = (getattr(trainer.models, name).state_dict() for trainer in (mine, theirs))
        assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in expected)
    own, expected = (trainer.models.optimizer.state_dict()["state"] for trainer in (mine, theirs))
    assert all(torch.equal(own[key]["exp_avg"], expected[key]["exp_avg"]) for key in expected)
    assert timeless(mine.folder) == timeless(theirs.folder)
    own, expected = mine.method.state_dict(), theirs.method.state_dict()
    saved = torch.load(mine.checkpoint, weights_only=True)["method"]
    assert own.keys() == expected.keys() == saved.keys()
    assert all(torch.equal(own[key], expected[key]) and torch.equal(own[key], saved[key]) for key in own)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder)]


def test_an_oracle_learns_the_held_out_labels_and_asks_no_teacher(stores: dict[str, Store], tmp_path: Path) -> None:
    trained = build_trainer(a_run("oracle"), stores, tmp_path / "run")
    method, fabric = trained.method, trained.fabric
    batch = next(trained.dataset.loader(0, 0))
    truth = [image.ground_truth for image in batch.unlabelled]
    found, scorers = pseudo_labels.detect(method, None, batch.unlabelled, (0, 0), fabric)
    targets = pseudo_labels.assign_weights(method, found, scorers, batch.unlabelled, fabric)
    assert [one.instances for one in targets] == truth and any(len(one) for one in found)
    weights = [weight for one in targets for weight in (one.class_weight, one.mask_weight, one.box_weight)]
    assert all(bool((weight == 1).all()) for weight in weights) and {one.background for one in targets} == {1.0}
    trained.fit()
    steps = [line for line in lines(tmp_path / "run") if line["event"] == "step"]
    assert steps and not any("pseudo" in line for line in steps), "there is no pseudo-label to describe"
    assert steps[-1]["loss"]["unlabelled/mask_iou"] > 0


def test_a_method_draws_the_same_about_an_image_whatever_other_images_its_rank_has(
    stores: dict[str, Store], tmp_path: Path
) -> None:
    drawn: dict[str, list[float]] = {}

    def draw(hook: str) -> None:
        drawn.setdefault(hook, []).append(torch.rand(()).item())

    class Drawing(MethodBase):
        def keep(self, detections: Instances) -> torch.Tensor:
            draw("keep")
            return super().keep(detections)

        def assign_weights(self, detections: Instances) -> Targets:
            draw("assign_weights")
            return super().assign_weights(detections)

        def end_step(self, sum_over_ranks: Callable[[torch.Tensor], torch.Tensor]) -> None:
            draw("end_step")

    trained = build_trainer(a_run("mean_teacher"), stores, tmp_path)
    batch = next(trained.dataset.loader(0, 0))
    for images in (batch.unlabelled, batch.unlabelled[1:]):
        part = replace(batch, unlabelled=images)
        train_step(trained.run, Drawing(MethodOptions()), trained.models, part, trained.fabric)
    for hook in ("keep", "assign_weights"):
        first, second, alone = drawn[hook]
        assert second == alone != first, hook
    assert drawn["end_step"][0] == drawn["end_step"][1], "of which all ranks draw the same"
    assert len({*drawn["keep"], *drawn["assign_weights"], *drawn["end_step"]}) == 5, "each hook has draws of its own"


@pytest.mark.parametrize(
    ("step", "momentum"),
    [(0, 0), (1, 0.5), (2, 0.666667), (9, 0.9), (99, 0.99), (998, 0.998999), (999, 0.999), (5000, 0.999)],
)
def test_ema_momentum_of_the_release(step: int, momentum: float) -> None:
    assert optim.ema_momentum(step, 0.999) == pytest.approx(momentum, abs=1e-6)


def test_the_teacher_is_the_ema_of_parameters() -> None:
    student, teacher = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = copy.deepcopy(teacher)
    optim.update_teacher(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight, 0.75 * before.weight + 0.25 * student.weight)
    optim.update_teacher(teacher, student, 0.0)
    assert torch.equal(teacher.weight, student.weight)


def test_an_update_of_the_teacher_is_bit_for_bit_that_of_every_parameter_and_buffer() -> None:
    student = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    student[0].requires_grad_(False)
    teacher = copy.deepcopy(student).requires_grad_(False)
    with torch.no_grad():
        for module in student[1:]:
            for parameter in module.parameters():
                parameter += torch.randn_like(parameter)
    student[1](torch.randn(2, 4, 5, 5))  # moves its three buffers, of two types
    expected = [t.lerp(s, 1 - 0.9) for t, s in zip(teacher.parameters(), student.parameters(), strict=True)]
    optim.update_teacher(teacher, student, 0.9)
    assert all(map(torch.equal, teacher.parameters(), expected))
    assert all(map(torch.equal, teacher.buffers(), student.buffers())) and teacher[1].num_batches_tracked == 1


def test_learning_rate_warms_up_and_falls_at_milestones() -> None:
    plan = Training(steps=100, warmup_steps=10, warmup_factor=0.001, milestones=(50, 80), lr_decay=0.1)
    factors = [optim.learning_rate_factor(plan, step) for step in (0, 5, 10, 49, 50, 79, 80, 99)]
    assert factors == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_every_method_trains_and_logs(method: str, network: str, whole: Callable[[Run], Trainer]) -> None:
    log = lines(whole(with_burn_in(method, network)).folder)
    steps = [line for line in log if line["event"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    evaluations = [line for line in log if line["event"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [2, 4]
    assert all(
        {"segm_AP", "segm_AP50", "bbox_AP"} <= line[m].keys() for line in evaluations for m in ("student", "teacher")
    )
    declared = plugins.load("methods", method).Method
    images = 4 if declared.uses_unlabelled else 2
    assert [line["images_seen"] for line in evaluations] == [4, 4 + 2 * images]
    used = [any(name.startswith("unlabelled/") for name in line["loss"]) for line in steps]
    assert used == [False, False, *2 * [declared.uses_unlabelled]]
    assert ("pseudo" in steps[2]) is (declared.uses_unlabelled and not declared.learns_held_out_labels)
    if "pseudo" in steps[2]:
        assert steps[2]["pseudo"].keys() >= {"kept_per_image", "precision", "class_weight", "mask_weight"}


@pytest.mark.parametrize(("network", "method"), LACKING)
def test_what_a_network_lacks_is_refused_by_name(
    network: str, method: str, stores: dict[str, Store], tmp_path: Path
) -> None:
    backend, name = network.split("/")
    lacking = LACKING[network, method]
    if lacking.startswith("the option"):
        methods = {"supervised": {}, method: CHOICES[method]}
        path = write_study(tmp_path, networks={name: {"backend": backend}}, methods=methods)
        with pytest.raises(BenchError, match=f"methods.{method}: needs {lacking}, which {network} does not have"):
            load_study(path)
    else:
        with pytest.raises(BenchError, match=f"methods.{method}: needs a network with {lacking}, which {network} has"):
            build_trainer(a_run(method, network), stores, tmp_path)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(("network", "method"), [pair for pair in PAIRS if pair[1] in CORE])
def test_a_run_that_is_stopped_ends_bit_for_bit_like_one_that_is_not(
    method: str, network: str, stop: int, stores: dict[str, Store], whole: Callable[[Run], Trainer], tmp_path: Path
) -> None:
    run = a_run(method, network)
    stop_after(stop, build_trainer(run, stores, tmp_path))
    tear_log(tmp_path)
    continued = build_trainer(run, stores, tmp_path)
    continued.fit()
    assert_same_end(continued, whole(run))


@pytest.mark.parametrize("mix", [{"kind": "cutmix"}, {"kind": "copy_paste", "min_pixels": 1, "scale": [0.8, 1.2]}])
def test_a_run_with_mixed_views_ends_bit_for_bit_the_same_and_not_like_one_without(
    mix: dict[str, Any], stores: dict[str, Store], whole: Callable[[Run], Trainer], tmp_path: Path
) -> None:
    run = a_run("pl_dc", unlabelled_batch_size=4, unlabelled_mix=mix)
    expected, parts = whole(run), tmp_path / "parts"
    stop_after(2, build_trainer(run, stores, parts))
    second = build_trainer(run, stores, parts)
    second.fit()
    assert_same_end(second, expected)
    plain = whole(a_run("pl_dc", unlabelled_batch_size=4))
    first, unmixed = timeless(expected.folder)[0], timeless(plain.folder)[0]
    assert first["pseudo"] == unmixed["pseudo"], "the teacher sees what it saw"
    assert first["loss"]["labelled/class"] == unmixed["loss"]["labelled/class"]
    assert first["loss"]["unlabelled/mask"] != unmixed["loss"]["unlabelled/mask"]


@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_a_run_that_begins_with_a_shared_burn_in_and_is_stopped_ends_bit_for_bit_like_one_with_its_own(
    method: str, network: str, stores: dict[str, Store], whole: Callable[[Run], Trainer], tmp_path: Path
) -> None:
    """Its log too, and its best checkpoint; and where it is stopped before the first checkpoint of its own."""
    run = with_burn_in(method, network)
    place(run.burn_in, stores, tmp_path / "burn_in", best=["teacher"])
    assert lines(tmp_path / "burn_in")[-1]["step"] == 2
    for _ in range(2):
        begun = build_trainer(run, stores, tmp_path, best=["teacher"], burn_in="burn_in")
        assert begun.step == 2 and not (tmp_path / "checkpoint.pt").exists()
    stop_after(3, begun)
    tear_log(tmp_path)
    continued = build_trainer(run, stores, tmp_path, best=["teacher"])
    assert continued.step == 3 and continued.begun_with == "burn_in"
    continued.fit()
    expected = whole(run)
    assert_same_end(continued, expected)
    mine, theirs = (checkpoint.read_checkpoint(t.folder / "best-teacher.pt", run) for t in (continued, expected))
    assert mine["step"] == theirs["step"]
    assert all(torch.equal(mine["teacher"][key], value) for key, value in theirs["teacher"].items())


def test_a_run_that_falls_back_has_a_whole_checkpoint_at_every_moment(stores: dict[str, Store], tmp_path: Path) -> None:
    run, newest = a_run(checkpoint_every=1), tmp_path / "checkpoint.pt"
    stop_after(3, build_trainer(run, stores, tmp_path))
    newest.write_bytes(b"damaged")
    trainer = build_trainer(run, stores, tmp_path)
    assert trainer.step == 2 and "damaged checkpoint" in trainer.fault
    state, fault = checkpoint.read_newest(newest, run)
    assert state is not None and state["step"] == 2 and not fault and not checkpoint.previous(newest).exists()


def test_runs_share_what_they_begin_with_and_nothing_else() -> None:
    """The burn-in of a method is that of the supervised run, whatever follows; an own network option has its own."""
    runs = {name: a_run(name, burn_in=2) for name in METHODS}
    digests = {name: run.burn_in.digest for name, run in runs.items()}
    own = {name for name in METHODS if plugins.load("methods", name).Method.network_options}
    assert {name for name in METHODS if digests[name] != digests["supervised"]} == own
    assert a_run("pais", burn_in=2, steps=9, milestones=[1, 8]).burn_in.digest != digests["pais"]
    assert a_run("pais", burn_in=2, steps=9).burn_in.digest == digests["pais"]
    assert a_run("pais", burn_in=3).burn_in.digest != digests["pais"]
    assert a_run("pais", burn_in=0).burn_in is None and a_run("pais", burn_in=4).burn_in is None
    assert runs["pais"].burn_in.burn_in is None


def test_a_finished_run_trains_no_more(stores: dict[str, Store], tmp_path: Path) -> None:
    build_trainer(a_run(), stores, tmp_path).fit()
    before = (tmp_path / "log.jsonl").read_text()
    again = build_trainer(a_run(), stores, tmp_path)
    before_again = again.trained_by
    again.fit()
    assert again.step == 4 and (tmp_path / "log.jsonl").read_text() == before
    assert again.trained_by == before_again
    assert before_again.keys() == {"commit", "earlier_commits", "versions", "hardware"}


def test_a_run_that_other_sources_began_names_their_commits(stores: dict[str, Store], tmp_path: Path) -> None:
    begun = build_trainer(a_run(), stores, tmp_path)
    begun.source |= {"commit": "b" * 40, "earlier_commits": ["a" * 40]}
    begun.stopping = True
    with pytest.raises(Interrupted):
        begun.fit()
    again = build_trainer(a_run(), stores, tmp_path)
    again.fit()
    assert again.trained_by["commit"] == provenance.commit()
    assert again.trained_by["earlier_commits"] == ["a" * 40, "b" * 40]


def test_the_time_of_a_training_has_its_waiting_for_batches(stores: dict[str, Store], tmp_path: Path) -> None:
    trainer = build_trainer(a_run(), stores, tmp_path)
    load = trainer.dataset.loader

    def slowly(*arguments: Any) -> Iterator[Any]:
        for batch in load(*arguments):
            time.sleep(0.2)
            yield batch

    trainer.dataset.loader = slowly  # type: ignore[method-assign, assignment]
    trainer.fit()
    assert trainer.seconds >= 4 * 0.2


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(stores: dict[str, Store], tmp_path: Path) -> None:
    faulty = build_trainer(a_run(), stores, tmp_path)
    faulty.models.student.model.roi_heads.mask_predictor.mask_fcn_logits.bias.data.fill_(math.nan)
    with pytest.raises(BenchError, match=r"loss not finite at step 0 in labelled/mask.*images .*lower training"):
        faulty.fit()


def test_the_pretrained_teacher_labels_first_and_the_ema_teacher_later(
    stores: dict[str, Store], tmp_path: Path
) -> None:
    trainer = build_trainer(a_run("guided_distillation"), stores, tmp_path)
    trained = checkpoint.read_checkpoint(tmp_path / trainer.run.teacher.folder / "checkpoint.pt", trainer.run.teacher)
    for name, value in trainer.models.pretrained_teacher.state_dict().items():
        assert torch.equal(value, trained["teacher"][name])
    used = []
    for name in ("pretrained_teacher", "teacher"):
        network = getattr(trainer.models, name)
        network.predict = lambda *arguments, name=name, predict=network.predict: (
            used.append(name) or predict(*arguments)
        )
    trainer._evaluate = lambda: {}
    trainer.fit()
    assert used == ["pretrained_teacher"] + ["teacher"] * 3
    burnt_in = build_trainer(a_run("guided_distillation", burn_in=2), stores, tmp_path / "burnt_in")
    used.clear()
    teacher_at = burnt_in.models.teacher_at
    burnt_in.models.teacher_at = lambda step, method: used.append(step) or teacher_at(step, method)
    burnt_in._evaluate = lambda: {}
    burnt_in.fit()
    assert used == [-2, -1, 0, 1], "guided steps are counted from the end of the burn-in"


def test_a_missing_pretrained_teacher_is_an_error(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run("guided_distillation")
    with pytest.raises(BenchError, match=r"checkpoint\.pt: no checkpoint; run `pais-bench train` first"):
        (tmp_path / run.teacher.folder).mkdir(parents=True)
        build_trainer(run, stores, tmp_path)


def test_thresholds_are_fitted_to_detections_without_masks(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 200 images of COCO would take 17 GB of a device."""
    run, seen = a_run("data_distillation"), []
    (tmp_path / run.teacher.folder).mkdir(parents=True)
    network = networks.build_backend(run.teacher, stores["val"].isthing)
    monkeypatch.setattr(pseudo_labels, "load_trained", lambda *_: network)
    monkeypatch.setattr(data_distillation.Method, "prepare", lambda self, found, *_: seen.extend(found))
    build_trainer(run, stores, tmp_path)
    assert sum(map(len, seen)) > 0 and all(one.masks.shape == (len(one), 0, 0) for one in seen)


def test_burn_in_leaves_the_unlabelled_images_out(stores: dict[str, Store], tmp_path: Path) -> None:
    build_trainer(a_run(burn_in=2), stores, tmp_path).fit()
    used = ["unlabelled/class" in line["loss"] for line in lines(tmp_path) if line["event"] == "step"]
    assert used == [False, False, True, True]


def test_the_mask_iou_branch_takes_no_gradient_from_pseudo_labels(stores: dict[str, Store], tmp_path: Path) -> None:
    method = build_trainer(a_run(), stores, tmp_path).method
    one = torch.ones(())
    assert weighted_total({"unlabelled": {"mask_iou": one}}, method) == 0
    assert (
        weighted_total({"labelled": {"mask_iou": one}, "unlabelled": {"mask": one}}, method)
        == 1 + method.unlabelled_weight
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_the_mixed_precision_of_a_cpu_trains(network: str, stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run(network=network, precision="bf16-mixed", steps=2)
    trainer = build_trainer(run, stores, tmp_path)
    trainer.fit()
    assert all(p.dtype == torch.float32 for p in trainer.models.student.parameters())
    assert all(math.isfinite(value) for line in lines(tmp_path) for value in line.get("loss", {}).values())


def half_precision(network: str, **training: Any) -> Run:
    """Return a run on one small image of each kind a step, since a CPU takes long for gradients of half precision."""
    one = {"labelled_batch_size": 1, "unlabelled_batch_size": 1, "evaluate_every": 99}
    run = a_run("mean_teacher", network, precision="16-mixed", **one, **training)
    return run.model_copy(update={"input": run.input.model_copy(update={"min_size_train": (32, 32)})})


HALF = [("torchvision/mask_rcnn", optimizer, clip) for optimizer in ("sgd", "adamw") for clip in (None, 1.0)]
HALF.append(("torchvision/knet", "adamw", 1.0))


@pytest.mark.parametrize(("network", "optimizer", "clip"), HALF)
def test_steps_that_overflow_in_half_precision_are_skipped_and_counted(
    network: str, optimizer: str, clip: float | None, stores: dict[str, Store], tmp_path: Path
) -> None:
    run = half_precision(network, steps=4, optimizer=optimizer, grad_clip=clip, evaluate_images=1)
    whole = build_trainer(run, stores, tmp_path / "whole", scaler=GradScaler("cpu", init_scale=2.0**30))
    before = copy.deepcopy(whole.models.student.state_dict())
    stop_after(2, whole)  # at such a scale the gradients of half precision overflow
    assert [line["skipped_steps"] for line in lines(tmp_path / "whole")] == [1, 2]
    names = [name for name, _ in whole.models.student.named_parameters()]
    assert all(torch.equal(whole.models.student.state_dict()[name], before[name]) for name in names)
    assert all(torch.equal(whole.models.teacher.state_dict()[name], before[name]) for name in names)

    scaler = GradScaler("cpu")
    resumed = build_trainer(run, stores, tmp_path / "whole", scaler=scaler)
    assert scaler.get_scale() == 2.0**28 and resumed.skipped_steps == 2
    scaler.load_state_dict(scaler.state_dict() | {"scale": 64.0})  # a scale at which they do not
    resumed.fit()
    assert [line["skipped_steps"] for line in lines(tmp_path / "whole") if line["event"] == "step"] == [1, 2, 2, 2]
    assert not any(torch.equal(resumed.models.student.state_dict()[name], before[name]) for name in names[-2:])
    assert resumed.models.weights_are_finite()
    assert all(parameter.dtype == torch.float32 for parameter in resumed.models.student.parameters())


def test_gradients_that_overflow_at_every_scale_stop_the_run(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 3)
    run = half_precision("torchvision/mask_rcnn", steps=9)
    stuck = build_trainer(run, stores, tmp_path, scaler=GradScaler("cpu"))
    next(stuck.models.student.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(BenchError, match=r"gradients of the last 3 steps overflowed, up to step 2, .*bf16-mixed"):
        stuck.fit()
    assert checkpoint.read_checkpoint(tmp_path / "checkpoint.pt", run)["skipped_steps"] == 2


@pytest.mark.parametrize("clip", [None, 1.0])
def test_weights_that_are_not_finite_are_never_written(
    clip: float | None, stores: dict[str, Store], tmp_path: Path
) -> None:
    run = a_run(grad_clip=clip, checkpoint_every=1, evaluate_every=99)
    trained = build_trainer(run, stores, tmp_path)
    steps = iter([1.0, 1.0, math.nan])
    next(trained.models.student.parameters()).register_hook(lambda gradient: gradient * next(steps))
    with pytest.raises(BenchError, match=r"weights not finite after step 2; lower training\.lr"):
        trained.fit()
    state = checkpoint.read_checkpoint(tmp_path / "checkpoint.pt", run)
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["student"].values())


def test_running_statistics_follow_the_labelled_views_alone() -> None:
    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)

        def loss(
            self, images: list[torch.Tensor], targets: list[Any], normalizer: Any, pad_to: Any
        ) -> dict[str, torch.Tensor]:
            return {"class": self.norm(torch.stack(images)).sum()}

    def step(**streams: torch.Tensor) -> torch.Tensor:
        losses = StudentLosses(Student())
        losses(
            StudentInput({name: Stream(list(images), [], (0, 0)) for name, images in streams.items()}), batch_normalizer
        )
        return losses.student.norm.running_mean  # type: ignore[union-attr, return-value]

    labelled, unlabelled = torch.rand(2, 1, 4, 4), 5 + torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(step(labelled=labelled, unlabelled=unlabelled), step(labelled=labelled))
    assert step(labelled=unlabelled) > 0.4


def test_a_loss_term_that_no_method_could_weight_is_refused() -> None:
    student = torch.nn.Module()
    student.loss = lambda *_: {"class": torch.ones(()), "entropy": torch.ones(())}
    inputs = StudentInput({"labelled": Stream([], [], (0, 0))})
    with pytest.raises(BenchError, match=r"loss has the term 'entropy'; add it to TERMS in pais_bench/types.py"):
        StudentLosses(student)(inputs, batch_normalizer)


def test_the_best_checkpoint_is_that_of_the_highest_evaluation_the_first_of_equals(tmp_path: Path) -> None:
    def evaluate(best: checkpoint.BestCheckpoints, step: int, ap: float | None) -> None:
        network = torch.nn.Linear(1, 1)
        network.weight.data.fill_(step)
        line = {"step": step, "teacher": {"segm_AP": ap}}
        best.update(line, {"teacher": network})
        network.weight.data.fill_(-1)  # training goes on

    best, path = checkpoint.BestCheckpoints(tmp_path, ["teacher"]), tmp_path / "best-teacher.pt"
    for step, ap in enumerate([None, 0.2, 0.1, 0.2]):
        evaluate(best, step, ap)
    assert not path.exists(), "it waits for the checkpoint"
    best.write("d1ge57")
    state = torch.load(path, weights_only=True)
    assert (state["step"], state["segm_AP"], state["digest"], state["teacher"]["weight"].item()) == (
        (1, 0.2, "d1ge57", 1.0)
    )  # fmt: skip
    again = checkpoint.BestCheckpoints(tmp_path, ["teacher"])
    again.resume(3, True, lambda path: torch.load(path, weights_only=True))
    evaluate(again, 4, 0.19)
    evaluate(again, 5, 0.3)
    again.write("d1ge57")
    assert torch.load(path, weights_only=True)["step"] == 5
    earlier = checkpoint.BestCheckpoints(tmp_path, ["teacher"])
    earlier.resume(4, True, lambda path: torch.load(path, weights_only=True))
    evaluate(earlier, 5, 0.3)
    assert earlier.unwritten["teacher"]["step"] == 5, "step 5 comes again"
    path.write_bytes(b"damaged")
    with pytest.raises(BenchError, match="best-teacher.pt: damaged .*; delete the folder of the run to train this run"):
        again.resume(5, True, lambda path: checkpoint.read_checkpoint(path, a_run()))
    late = checkpoint.BestCheckpoints(tmp_path / "nowhere", ["student"])
    with pytest.raises(BenchError, match=r"best-student.pt: missing, and the run is at step 8; remove its folder"):
        late.resume(8, True, lambda path: {})
    late.resume(1, False, lambda path: {})


def test_a_stopped_run_keeps_the_same_best_checkpoints(stores: dict[str, Store], tmp_path: Path) -> None:
    run, models = a_run(steps=6, evaluate_every=1), ("teacher", "student")
    build_trainer(run, stores, tmp_path / "whole", models).fit()
    stop_after(3, build_trainer(run, stores, tmp_path / "parts", models))
    build_trainer(run, stores, tmp_path / "parts", models).fit()
    evaluations = [line for line in lines(tmp_path / "whole") if line["event"] == "evaluation"]
    for model in models:
        mine, theirs = (
            torch.load(tmp_path / part / f"best-{model}.pt", weights_only=True) for part in ("parts", "whole")
        )
        highest = max(evaluations, key=lambda line: line[model]["segm_AP"])
        assert (theirs["step"], theirs["segm_AP"]) == (highest["step"], highest[model]["segm_AP"])
        assert mine["step"] == theirs["step"] and mine[model].keys() == theirs[model].keys()
        assert all(torch.equal(mine[model][key], value) for key, value in theirs[model].items())
        loaded = networks.load_trained(run, (True,) * 8, tmp_path / "parts", f"{model}-best")
        assert all(torch.equal(value, theirs[model][key]) for key, value in loaded.state_dict().items())
    last = a_run(steps=2, evaluate_every=2)
    stopped = build_trainer(last, stores, tmp_path / "last", models)
    stopped._evaluate = lambda: stopped._stop_evaluation(0)
    stopped.stopping = True
    with pytest.raises(Interrupted):
        stopped.fit()
    build_trainer(last, stores, tmp_path / "last", models).fit()
    assert torch.load(tmp_path / "last" / "best-teacher.pt", weights_only=True)["step"] == 2
    records = stores["val"].coco_dict()
    records["annotations"] = [one for one in records["annotations"] if one["image_id"] == stores["val"].image_ids[-1]]
    write_store(tmp_path / "last_image", "mine", {"val": Subset("file.json", tmp_path, **records)})
    first, val = a_run(evaluate_images=1), Store.open(tmp_path / "last_image", "val")
    with pytest.raises(BenchError, match=r"none of the 1 images that it is evaluated on has an object"):
        build_trainer(first, {**stores, "val": val}, tmp_path / "none", models)
    of_stuff = {**records["categories"][0], "id": 99, "name": "sky", "isthing": 0}
    sky = {**stores["val"].annotations(stores["val"].image_ids[0])[0], "category_id": 99}
    records["categories"].append(of_stuff)
    records["annotations"].append(sky)
    write_store(tmp_path / "stuff", "mine", {"val": Subset("file.json", tmp_path, **records)})
    with pytest.raises(BenchError, match=r"none of the 1 images that it is evaluated on has an object"):
        build_trainer(first, {**stores, "val": Store.open(tmp_path / "stuff", "val")}, tmp_path / "none", models)
    build_trainer(run, stores, tmp_path / "without").fit()
    assert not list((tmp_path / "without").glob("best-*"))
    with pytest.raises(BenchError, match=r"best-teacher.pt: missing; it is kept while training alone"):
        networks.load_trained(run, (True,) * 8, tmp_path / "without", "teacher-best")
