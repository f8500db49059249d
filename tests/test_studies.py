"""Check that studies inherit from their base, and that old keys are refused with their new names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import study, write_study

from pais_bench.errors import BenchError
from pais_bench.study.load import STUDIES, load_study


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_every_shipped_study_loads(name: str) -> None:
    loaded = load_study(name)
    assert loaded.name == name and loaded.runs()


def test_studies_on_the_demo_share_its_runs() -> None:
    demo = {run.digest for run in load_study("demo").runs()}
    wider = {run.digest for run in load_study("label_efficiency").runs()}
    assert wider < {run.digest for run in load_study("baselines").runs()}
    for study_name, shared in (("label_efficiency", 9), ("backends", 3), ("ten_folds", 10), ("repeats", 3)):
        assert len(demo & {run.digest for run in load_study(study_name).runs()}) == shared
    repeats = load_study("repeats").runs()
    assert len({(run.seed, run.split.percent, run.method.name) for run in repeats}) == len(repeats) == 30
    assert not demo & {run.digest for run in load_study("long").runs()}
    assert load_study("demo").note and not load_study("long").note, "a note is about the numbers of its study"


def test_the_releases_values_are_those_of_its_configs() -> None:
    coco, ten, cityscapes = (load_study(name) for name in ("coco", "coco_10", "cityscapes"))
    knet, mask_rcnn = ten.run(10, 1, "knet", "pais"), ten.run(10, 1, "mask_rcnn", "pais_mask_rcnn")
    assert (knet.training.steps, knet.training.milestones, knet.training.lr) == (220_000, (160_000, 200_000), 1e-4)
    training = mask_rcnn.training
    assert (training.steps, training.milestones, training.lr) == (90_000, (60_000, 80_000), 0.02)
    assert (training.labelled_batch_size, training.unlabelled_batch_size, training.warmup_steps) == (8, 8, 500)
    assert knet.method.options["unlabelled_weight"] == 1 and mask_rcnn.method.options["unlabelled_weight"] == 1.5
    assert {run.network.label for run in ten.runs() if run.method.label == "pais"} == {"knet"}
    assert {run.network.label for run in ten.runs() if run.method.label == "pais_mask_rcnn"} == {"mask_rcnn"}
    for study_ in (coco, ten, cityscapes):
        assert study_.networks["mask_rcnn"].options["mask_iou_weight"] == 0.25
    assert [one.training.filter_empty_gt for one in (coco, ten, cityscapes)] == [False, True, True]
    assert coco.networks["knet"].options["release_init"] and ten.networks["knet"].options["release_init"]


def test_the_frontier_trains_every_method_by_its_releases_schedule() -> None:
    frontier = load_study("frontier")
    assert {run.split.percent for run in frontier.runs()} == {1, 2, 5, 10}
    pairs = {(run.network.label, run.method.label) for run in frontier.runs()}
    methods = ("supervised", "pais", "guided_distillation", "pl_dc", "mc_panda", "s4m", "sam_refined")
    assert pairs == {(network, method) for network in ("mask_rcnn", "knet", "mask2former") for method in methods}
    guided, pl_dc, mc_panda, s4m = (frontier.run(1, 1, "mask2former", method) for method in methods[2:6])
    assert (pl_dc.training.steps, pl_dc.training.milestones, pl_dc.training.grad_clip) == (368_750, (145_000,), 0.01)
    assert [(one.training.burn_in, one.training.ema_decay) for one in (guided, pl_dc, mc_panda)] == [
        (0, 0.9996),
        (20_000, 0.9996),
        (20_000, 0.999),
    ]
    assert [one.method.options["unlabelled_weight"] for one in (guided, pl_dc, s4m)] == [2, 1, 2]
    mix = s4m.training.unlabelled_mix
    assert mix and mix.kind == "copy_paste" and mix.scale == (0.8, 1.2) and not pl_dc.training.unlabelled_mix


def derived(folder: Path, **values: Any) -> Path:
    """Write a study that is based on the tiny one."""
    write_study(folder)
    path = folder / "derived.yaml"
    path.write_text(yaml.safe_dump({"base": "tiny.yaml", "name": "derived", **values}))
    return path


def test_a_study_overrides_its_base_key_by_key(tmp_path: Path) -> None:
    changes = {"training": {"steps": 9}, "methods": {"supervised": None, "pais": {"options": {"alpha": 1.0}}}}
    loaded, base = load_study(derived(tmp_path, **changes)), load_study(tmp_path / "tiny.yaml")
    assert loaded.training == base.training.model_copy(update={"steps": 9})
    assert list(loaded.methods) == ["mean_teacher", "pais"]
    assert loaded.methods["pais"].options == {**base.methods["pais"].options, "alpha": 1.0}
    assert load_study(derived(tmp_path)).runs() == base.runs()


def test_paths_of_a_base_are_relative_to_its_own_file(tmp_path: Path) -> None:
    dataset, split = {"name": "coco", "root": "data"}, {"family": "stratified", "percents": [10], "source": "list.txt"}
    write_study(tmp_path, dataset=dataset, split=split, external=["other.yaml"])
    path = tmp_path / "deeper" / "derived.yaml"
    path.parent.mkdir()
    path.write_text("base: ../tiny.yaml\nname: derived\n")
    loaded = load_study(path)
    assert (loaded.dataset.root, loaded.split.source) == (tmp_path / "data", tmp_path / "list.txt")
    assert loaded.external == (tmp_path / "other.yaml",)


def test_null_outside_of_networks_and_methods_is_a_value(tmp_path: Path) -> None:
    assert load_study(derived(tmp_path, training={"grad_clip": None})).training.grad_clip is None


@pytest.mark.parametrize("base", ["derived.yaml", "absent", 3])
def test_a_base_that_is_no_other_study_is_refused(tmp_path: Path, base: object) -> None:
    with pytest.raises(BenchError, match=r"'base': .* is not another study|no such study file"):
        load_study(derived(tmp_path, base=base))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": {"short": [8, 9]}}, r"unknown key 'views'; known keys here: .*\binput\b"),
        ({"input": {**study()["input"], "flip": 1}}, "unknown key 'input.flip'"),
        (
            {"networks": {"mask_rcnn": {"backend": "torchvision", "options": {"roi_batch": 8}}}},
            "unknown key 'roi_batch'; known keys here: .*box_batch_size_per_image",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load_study(write_study(tmp_path, **change))


def test_a_method_overrides_no_network_option_of_the_study(tmp_path: Path) -> None:
    networks = study()["networks"]
    networks["mask_rcnn"]["options"] = {**networks["mask_rcnn"]["options"], "focal_gamma": 2.0}
    path = write_study(tmp_path, networks=networks, methods={"unbiased_teacher": {}})
    with pytest.raises(BenchError, match=r"options\.focal_gamma: 2\.0, but methods\.unbiased_teacher needs 1\.5"):
        load_study(path)


def test_a_digest_is_of_what_may_change_a_number() -> None:
    run = load_study("demo").runs()[0]

    def digest(**changes: Any) -> str:
        changed = run.model_copy(update={"training": run.training.model_copy(update=changes)})
        taught = changed.model_copy(update={"teacher": changed})
        twice = changed.model_copy(update={"teacher": taught})
        return f"{changed.digest} {taught.digest} {twice.digest}"

    assert digest(checkpoint_every=7, log_every=3) == digest()
    options = dict(reversed(run.network.options.items()))
    assert run.model_copy(update={"network": run.network.model_copy(update={"options": options})}).digest == run.digest
    others = [{"matmul_precision": "high"}, {"filter_empty_gt": True}, {"seed": 5}, {"evaluate_every": 7}]
    assert len({part for changes in (*others, {}) for part in digest(**changes).split()}) == 3 * 5


def test_micro_batches_change_no_digest(tmp_path: Path) -> None:
    plain = load_study(write_study(tmp_path)).runs()
    with_micro_batches = load_study(write_study(tmp_path, resources={"train": {"accumulate": 2}}))
    assert with_micro_batches.resources["train"].accumulate == 2 and with_micro_batches.runs() == plain
