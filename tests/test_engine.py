"""Does the one loop do what its first page says, and does a killed run end like one that was not?"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny import SMALLEST, load_backend, study, write_study

from pais_bench import checkpoint, engine, inference, plugins, schedule
from pais_bench.config import Run, Study, Training
from pais_bench.learner import Learner, Streams
from pais_bench.splits import Split, draw_split
from pais_bench.store import Store
from pais_bench.study_file import load_study
from pais_bench.types import BenchError

METHODS = plugins.names("methods")
NETWORKS = plugins.names("backends")
OPTIONS: dict[str, Any] = {
    "soft_teacher": {"options": {"score_threshold": 0.0, "foreground_threshold": 0.0}},
    "polite_teacher": {"options": {"score_threshold": 0.0}},
    "unbiased_teacher": {"options": {"score_threshold": 0.0}},
    "guided_distillation": {"options": {"score_threshold": 0.0, "guided_steps": 2}, "teacher": "supervised"},
    "data_distillation": {"options": {"calibration_images": 3}, "teacher": "supervised"},
    "noisy_boundary": {"options": {"calibration_images": 3}, "teacher": "supervised"},
}
FOR_REGIONS = {"soft_teacher", "unbiased_teacher", "noisy_boundary"}
"""What these ask for, networks of queries do not have."""
CORE = ("supervised", "pais")
PAIRS = [
    (network, name)
    for network in NETWORKS
    for name in METHODS
    if network.endswith("mask_rcnn") or name not in FOR_REGIONS
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("shapes")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=40, val=6, size=64), None).prepare(folder, "shapes")
    return {part: Store.open(folder, part) for part in ("train", "val")}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def a_run(method: str = "pais", network: str = "torchvision/mask_rcnn", **training: Any) -> Run:
    load_backend(network)
    backend, name = network.split("/")
    values = study(
        networks={name: {"backend": backend, "options": SMALLEST[network]}},
        methods={one: study()["methods"].get(one, OPTIONS.get(one, {})) for one in METHODS},
    )
    values["training"] |= training
    return Study(**values).run(10, 1, name, method)


def split_of(run: Run, stores: dict[str, Store]) -> Split:
    return draw_split(stores["train"], run.dataset, run.split)


def trainer(run: Run, stores: dict[str, Store], folder: Path) -> engine.Trainer:
    """Build a trainer in a folder; the run of its teacher, if it wants one, is trained first, below that folder."""
    folder.mkdir(exist_ok=True)
    if run.teacher and not (folder / run.teacher.folder).exists():
        (folder / run.teacher.folder).mkdir(parents=True)
        trainer(run.teacher, stores, folder / run.teacher.folder).fit()
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return engine.Trainer(run, stores, split_of(run, stores), folder, fabric, results=folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def timeless(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.mark.parametrize(
    ("step", "momentum"),
    [(0, 0), (1, 0.5), (2, 0.666667), (9, 0.9), (99, 0.99), (998, 0.998999), (999, 0.999), (5000, 0.999)],
)
def test_ema_momentum_of_the_fact_sheet(step: int, momentum: float) -> None:
    assert schedule.ema_momentum(step, 0.999) == pytest.approx(momentum, abs=1e-6)  # paper.md 9.5


def test_the_teacher_is_the_running_average_of_parameters() -> None:
    student, teacher = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = copy.deepcopy(teacher)
    schedule.update_teacher(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight, 0.75 * before.weight + 0.25 * student.weight)
    schedule.update_teacher(teacher, student, 0.0)
    assert torch.equal(teacher.weight, student.weight)


def test_learning_rate_warms_up_and_falls_at_milestones() -> None:
    plan = Training(steps=100, warmup_steps=10, warmup_factor=0.001, milestones=(50, 80), decay=0.1)
    factors = [schedule.learning_rate(plan, step) for step in (0, 5, 10, 49, 50, 79, 80, 99)]
    assert factors == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_every_method_trains_and_logs(method: str, network: str, stores: dict[str, Store], tmp_path: Path) -> None:
    trainer(a_run(method, network), stores, tmp_path).fit()
    log = lines(tmp_path)
    assert [line["step"] for line in log if line["event"] == "step"] == [1, 2, 3, 4]
    evaluations = [line for line in log if line["event"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [2, 4]
    assert all(
        {"segm_AP", "segm_AP50", "bbox_AP"} <= line[m].keys() for line in evaluations for m in ("student", "teacher")
    )
    seen = 2 if method == "supervised" else 4
    assert [line["images_seen"] for line in evaluations] == [2 * seen, 4 * seen]
    assert any(name.startswith("unlabelled/") for name in log[0]["loss"]) is (method != "supervised")
    if method != "supervised":
        assert log[0]["pseudo"].keys() >= {"kept_per_image", "precision", "class_weight", "mask_weight"}


@pytest.mark.parametrize("network", [name for name in NETWORKS if not name.endswith("mask_rcnn")])
@pytest.mark.parametrize("method", sorted(FOR_REGIONS))
def test_what_a_network_of_queries_lacks_is_refused_by_name(
    method: str, network: str, stores: dict[str, Store], tmp_path: Path
) -> None:
    backend, name = network.split("/")
    if method == "soft_teacher":
        with pytest.raises(BenchError, match=f"needs the verb 'score', which {network} does not have"):
            trainer(a_run(method, network), stores, tmp_path)
    else:
        methods = {"supervised": {}, method: OPTIONS[method]}
        path = write_study(tmp_path, networks={name: {"backend": backend}}, methods=methods)
        with pytest.raises(BenchError, match=f"methods.{method}: needs the option '.*', which {network} does not have"):
            load_study(path)


@pytest.mark.parametrize(
    ("network", "method", "stop"),
    [(network, method, stop) for network, method in PAIRS for stop in ((1, 2, 3) if method in CORE else (2,))],
)
def test_a_run_that_is_stopped_ends_bit_for_bit_like_one_that_is_not(
    method: str, network: str, stop: int, stores: dict[str, Store], tmp_path: Path
) -> None:
    run = a_run(method, network)
    whole = trainer(run, stores, tmp_path / "whole")
    whole.fit()

    first = trainer(run, stores, tmp_path / "parts")

    def pull(line: dict[str, Any]) -> None:
        first.stopping = line["step"] == stop

    with pytest.raises(engine.Interrupted, match=f"stopped after step {stop} of 4"):
        first.fit(progress=pull)
    second = trainer(run, stores, tmp_path / "parts")
    second.fit()
    assert second.step == whole.step == 4
    for name in ("student", "teacher"):
        mine, theirs = getattr(second, name).state_dict(), getattr(whole, name).state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert timeless(lines(tmp_path / "parts")) == timeless(lines(tmp_path / "whole"))
    mine, theirs = second.optimizer.state_dict(), whole.optimizer.state_dict()
    assert all(torch.equal(mine["state"][k]["exp_avg"], theirs["state"][k]["exp_avg"]) for k in theirs["state"])


def test_lines_after_the_last_checkpoint_are_written_once(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run()
    first = trainer(run, stores, tmp_path)

    def die(line: dict[str, Any]) -> None:
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.fit(progress=die)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "st')  # a torn line, as a kill leaves it
    trainer(run, stores, tmp_path).fit()
    assert [line["step"] for line in lines(tmp_path) if line["event"] == "step"] == [1, 2, 3, 4]


def test_a_finished_run_trains_no_more(stores: dict[str, Store], tmp_path: Path) -> None:
    trainer(a_run(), stores, tmp_path).fit()
    before = (tmp_path / "log.jsonl").read_text()
    again = trainer(a_run(), stores, tmp_path)
    again.fit()
    assert again.step == 4 and (tmp_path / "log.jsonl").read_text() == before


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(stores: dict[str, Store], tmp_path: Path) -> None:
    faulty = trainer(a_run(), stores, tmp_path)
    faulty.student.model.roi_heads.mask_predictor.mask_fcn_logits.bias.data.fill_(math.nan)
    with pytest.raises(BenchError, match=r"loss not finite at step 0 in labelled/mask.*images .*lower training"):
        faulty.fit()


def test_the_trained_teacher_labels_first_and_the_running_average_later(
    stores: dict[str, Store], tmp_path: Path
) -> None:
    found = trainer(a_run("guided_distillation"), stores, tmp_path)
    trained = checkpoint.read_checkpoint(tmp_path / found.run.teacher.folder / "checkpoint.pt", found.run.teacher)
    for name, value in found.guide.state_dict().items():
        assert torch.equal(value, trained["teacher"][name])
    asked = []
    for name in ("guide", "teacher"):
        network = getattr(found, name)
        network.predict = lambda images, name=name, ask=network.predict: asked.append(name) or ask(images)
    found._evaluate = lambda: {}
    found.fit()
    assert asked == ["guide", "guide", "teacher", "teacher"]


def test_the_trained_teacher_must_be_there(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run("guided_distillation")
    with pytest.raises(BenchError, match=r"checkpoint\.pt: no checkpoint; run `pais-bench train` first"):
        (tmp_path / run.teacher.folder).mkdir(parents=True)
        trainer(run, stores, tmp_path)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name.startswith("torchvision/")])
def test_only_the_hungarian_matching_of_a_step_leaves_the_device(
    network: str, stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, askers = trainer(a_run(network=network), stores, tmp_path), []
    batch = found.stream[0]  # a loader's work, before the step

    def spied(name: str) -> Callable[..., Any]:
        plain = getattr(torch.Tensor, name)

        def ask(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            if tensor.numel() > 9:  # a view's matrix never was on a device
                askers.append(sys._getframe(1).f_globals["__name__"])
            return plain(tensor, *arguments, **options)

        return ask

    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, spied(name))
    described = found._train_step(batch)
    monkeypatch.undo()  # a logged step describes itself with numpy
    assert described()["pseudo"]["kept_per_image"] > 0
    expected = {"pais_bench.backends.torchvision._matching"} if network.endswith("knet") else set()
    assert set(askers) == expected


def test_burn_in_leaves_the_unlabelled_stream_out(stores: dict[str, Store], tmp_path: Path) -> None:
    trainer(a_run(burn_in=2), stores, tmp_path).fit()
    used = ["unlabelled/class" in line["loss"] for line in lines(tmp_path) if line["event"] == "step"]
    assert used == [False, False, True, True]


def test_the_quality_branch_takes_no_gradient_from_pseudo_labels(stores: dict[str, Store], tmp_path: Path) -> None:
    found = trainer(a_run(), stores, tmp_path)
    assert found._weight("unlabelled/quality") == 0 and found._weight("labelled/quality") == 1
    assert found._weight("unlabelled/mask") == found.method.unlabelled_weight


@pytest.mark.parametrize("network", NETWORKS)
def test_the_mixed_precision_of_a_cpu_trains(network: str, stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run(network=network, precision="bf16-mixed", steps=2)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    found = engine.Trainer(run, stores, split_of(run, stores), tmp_path, fabric)
    found.fit()
    assert all(p.dtype == torch.float32 for p in found.student.parameters())
    assert all(math.isfinite(value) for line in lines(tmp_path) for value in line.get("loss", {}).values())


def test_damaged_and_foreign_checkpoints_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run()
    trainer(run, stores, tmp_path).fit()
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(BenchError, match=r"checkpoint of run [0-9a-f]{8}, not of [0-9a-f]{8}"):
        checkpoint.read_checkpoint(path, a_run("supervised"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BenchError, match=r"damaged checkpoint .*; delete it to train this run anew"):
        checkpoint.read_checkpoint(path, run)
    with pytest.raises(BenchError, match="no checkpoint; run `pais-bench train` first"):
        checkpoint.read_checkpoint(tmp_path / "absent.pt", run)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write_checkpoint(path, {"step": 1})
    with pytest.raises(AttributeError):
        checkpoint.write_checkpoint(path, {"step": lambda: None})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_running_statistics_follow_the_labelled_views_alone() -> None:
    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)

        def loss(self, images: list[torch.Tensor], targets: list[Any]) -> dict[str, torch.Tensor]:
            return {"class": self.norm(torch.stack(images)).sum()}

    def step(**streams: torch.Tensor) -> torch.Tensor:
        learner = Learner(Student())
        learner(Streams(**{name: (list(images), [], (0, 0)) for name, images in streams.items()}))
        return learner.student.norm.running_mean  # type: ignore[union-attr, return-value]

    labelled, unlabelled = torch.rand(2, 1, 4, 4), 5 + torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(step(labelled=labelled, unlabelled=unlabelled), step(labelled=labelled))
    assert step(labelled=unlabelled) > 0.4


def test_the_best_weights_are_those_of_the_highest_evaluation_the_first_of_equals(tmp_path: Path) -> None:
    def look(best: checkpoint.Best, step: int, ap: float | None) -> None:
        network = torch.nn.Linear(1, 1)
        network.weight.data.fill_(step)
        line = {"step": step, "teacher": {"segm_AP": ap}}
        best.look(line, {"teacher": network})
        network.weight.data.fill_(-1)  # training goes on

    best, path = checkpoint.Best(tmp_path, ["teacher"]), tmp_path / "best-teacher.pt"
    for step, ap in enumerate([None, 0.2, 0.1, 0.2]):
        look(best, step, ap)
    assert not path.exists(), "it waits for the checkpoint"
    best.write("d1ge57")
    found = torch.load(path, weights_only=True)
    assert (found["step"], found["segm_AP"], found["digest"], found["teacher"]["weight"].item()) == (
        (1, 0.2, "d1ge57", 1.0)
    )  # fmt: skip
    again = checkpoint.Best(tmp_path, ["teacher"])
    again.resume(3, True, lambda path: torch.load(path, weights_only=True))
    look(again, 4, 0.19)
    look(again, 5, 0.3)
    again.write("d1ge57")
    assert torch.load(path, weights_only=True)["step"] == 5
    earlier = checkpoint.Best(tmp_path, ["teacher"])
    earlier.resume(4, True, lambda path: torch.load(path, weights_only=True))
    look(earlier, 5, 0.3)
    assert earlier.unwritten["teacher"]["step"] == 5, "step 5 comes again"
    late = checkpoint.Best(tmp_path / "nowhere", ["student"])
    with pytest.raises(BenchError, match=r"best-student.pt: missing, and the run is at step 8; remove its folder"):
        late.resume(8, True, lambda path: {})
    late.resume(1, False, lambda path: {})


def test_a_stopped_run_keeps_the_same_best_weights(stores: dict[str, Store], tmp_path: Path) -> None:
    def built(folder: Path) -> engine.Trainer:
        folder.mkdir(exist_ok=True)
        fabric = Fabric(accelerator="cpu", devices=1)
        fabric.launch()
        return engine.Trainer(run, stores, split_of(run, stores), folder, fabric, best=["teacher", "student"])

    run = a_run(steps=6, evaluate_every=1)
    built(tmp_path / "whole").fit()
    first = built(tmp_path / "parts")

    def pull(line: dict[str, Any]) -> None:
        first.stopping = line["step"] == 3

    with pytest.raises(engine.Interrupted):
        first.fit(progress=pull)
    built(tmp_path / "parts").fit()
    evaluations = [line for line in lines(tmp_path / "whole") if line["event"] == "evaluation"]
    for model in ("teacher", "student"):
        mine, theirs = (
            torch.load(tmp_path / part / f"best-{model}.pt", weights_only=True) for part in ("parts", "whole")
        )
        highest = max(evaluations, key=lambda line: line[model]["segm_AP"])
        assert (theirs["step"], theirs["segm_AP"]) == (highest["step"], highest[model]["segm_AP"])
        assert mine["step"] == theirs["step"] and mine[model].keys() == theirs[model].keys()
        assert all(torch.equal(mine[model][key], value) for key, value in theirs[model].items())
        loaded = inference.load_trained(run, 8, tmp_path / "parts", f"{model}-best")
        assert all(torch.equal(value, theirs[model][key]) for key, value in loaded.state_dict().items())
    trainer(run, stores, tmp_path / "without").fit()
    assert not list((tmp_path / "without").glob("best-*"))
    with pytest.raises(BenchError, match=r"best-teacher.pt: missing; it is kept while training alone"):
        inference.load_trained(run, 8, tmp_path / "without", "teacher-best")
