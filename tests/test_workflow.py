"""Check that the workflow makes exactly what is missing, by dry-runs of Snakemake over a study with faked files."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conda
import pytest
import yaml
from forked_snakemake import snakemake
from squares import OPTIONS, edit, write_squares

from pais_bench.errors import BenchError
from pais_bench.study.load import load_study

pytest.importorskip("snakemake", reason="no Snakemake here: this is not the environment of the workflow")

ROOT = Path(__file__).parent.parent
STUDY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "shapes", "label": "tiny_shapes", "options": {"train": 40}},
    "split": {"percents": [2.5, 10], "folds": [1]},
    "networks": {"small": {"backend": "torchvision", "name": "mask_rcnn", "options": {"backbone": "small"}}},
    "methods": {"supervised": {}, "mean_teacher": {}, "strict": {"name": "pais", "options": {"alpha": 8.0}}},
}
DATASET_FILES = [f"{subset}.{kind}.arrow" for subset in ("train", "val") for kind in ("images", "annotations")]
PER_STUDY, PER_RUN = {"report": 1, "all": 1}, ("train", "predict", "evaluate")


@dataclass(frozen=True)
class Project:
    """Hold a copy of the project and its study."""

    root: Path
    study: dict[str, Any]

    def edit(self, **sections: Any) -> Project:
        """Change sections of the study file."""
        project = Project(self.root, {**self.study, **sections})
        (self.root / "tiny.yaml").write_text(yaml.safe_dump(project.study))
        return project

    def snakemake(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the project, whose package comes before an installed one in jobs; stdout has stderr too."""
        words, output = ("--workflow-profile", "profiles/local", *options), self.root / "output.txt"
        return snakemake(words, self.root, output, PYTHONPATH=str(self.root), **variables)

    def planned(self, *config: str, study: str = "tiny.yaml") -> list[tuple[str, str]]:
        """Return (rule, first output) of the jobs of a dry-run; the target's output is empty."""
        done = self.snakemake("-n", "--quiet", "host", "--config", f"study={study}", *config)
        assert done.returncode == 0, done.stdout
        blocks = re.split(r"^(?:local)?rule (\w+):\n", done.stdout, flags=re.MULTILINE)[1:]
        outputs = (re.search(r"^    output: ([^,\n]+)", block, re.MULTILINE) for block in blocks[1::2])
        return [(rule, output[1] if output else "") for rule, output in zip(blocks[::2], outputs, strict=True)]

    def finish(self) -> None:
        """Create every output empty, in the order of the workflow, and let Snakemake record its provenance."""
        study = load_study(self.root / "tiny.yaml")
        results = self.root / "results"
        folder = runpy.run_path(str(self.root / "envs" / "build.py"))["folder"]("torchvision")
        dataset = results / "datasets" / study.dataset.label
        runs = [results / run.folder for run in study.runs()]
        splits = {(run.split.family, run.split.stem) for run in study.runs()}
        files = [self.root / folder / "READY"]
        files += [dataset / name for name in ("dataset.json", *DATASET_FILES)]
        files += [results / "splits" / study.dataset.label / family / f"{stem}.json" for family, stem in splits]
        files += [run / name for name in ("run.json", "predictions.json", "metrics.json") for run in runs]
        files.append(results / "reports" / study.name / "report.html")
        for age, path in enumerate(files):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (1e9 + age, 1e9 + age))
        done = self.snakemake("--touch", "--forceall", "--config", "study=tiny.yaml")
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    for name in ("envs", "pais_bench", "profiles", "rules"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", root)
    project = Project(root, STUDY).edit()
    project.finish()
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(finished.root, tmp_path / "project")), STUDY)


def counts(planned: list[tuple[str, str]]) -> dict[str, int]:
    return dict(Counter(rule for rule, _ in planned))


def trained(planned: list[tuple[str, str]]) -> set[str]:
    """Return percent and method of the planned trainings."""
    matches = (
        re.search(r"/([\d.]+)pct.*/(\w+)-[0-9a-f]{8}/run.json", path) for rule, path in planned if rule == "train"
    )
    return {f"{match[1]} {match[2]}" for match in matches if match}


def test_lint_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_report_of_snakemake_has_the_page(project: Project) -> None:
    done = project.snakemake("--report", "snakemake.html", "--config", "study=tiny.yaml")
    assert done.returncode == 0, done.stdout
    text = (project.root / "snakemake.html").read_text()
    assert "report.html" in text


@pytest.mark.parametrize(
    ("requested", "workers"), [({"gpus": 1, "cpus": 8}, ["7"]), ({"gpus": 1}, []), ({"cpus": 4}, [])]
)
def test_a_training_has_a_loader_process_for_every_cpu_but_one(
    project: Project, requested: dict[str, int], workers: list[str]
) -> None:
    shutil.rmtree(project.root / "results")
    changed = project.edit(resources={"train": requested}, split={"percents": [10], "folds": [1]})
    done = changed.snakemake("-n", "--quiet", "host", "--printshellcmds", "--config", "study=tiny.yaml")
    assert done.returncode == 0, done.stdout
    commands = re.findall(r"-m pais_bench train .*", done.stdout)
    assert len(commands) == 3 and all(re.findall(r"--workers (\d+)", one) == workers for one in commands)


def test_a_new_study_plans_the_whole_grid(project: Project) -> None:
    shutil.rmtree(project.root / "results")
    shutil.rmtree(project.root / ".envs")
    planned = project.planned()
    per_run = dict.fromkeys(PER_RUN, 6)
    assert counts(planned) == {"environment": 1, "prepare": 1, "split": 2, **per_run, **PER_STUDY}
    assert trained(planned) == {f"{p} {m}" for p in ("2.5", "10") for m in ("supervised", "mean_teacher", "strict")}


def test_a_finished_study_plans_nothing(project: Project) -> None:
    assert project.planned() == []


def test_missing_runs_are_planned_without_the_metadata_of_snakemake(project: Project) -> None:
    shutil.rmtree(project.root / ".snakemake")
    methods = {**STUDY["methods"], "strict": {"name": "pais", "options": {"alpha": 9.0}}}
    assert trained(project.edit(methods=methods).planned()) == {"2.5 strict", "10 strict"}


def test_an_edited_option_repeats_its_runs(project: Project) -> None:
    methods = {**STUDY["methods"], "strict": {"name": "pais", "options": {"alpha": 9.0}}}
    planned = project.edit(methods=methods).planned()
    assert trained(planned) == {"2.5 strict", "10 strict"}
    assert counts(planned) == {**dict.fromkeys(PER_RUN, 2), **PER_STUDY}


def test_a_new_method_plans_only_its_runs(project: Project) -> None:
    folder = project.root / "pais_bench" / "methods"
    shutil.copy(folder / "mean_teacher.py", folder / "brand_new.py")
    planned = project.edit(methods={**STUDY["methods"], "brand_new": {}}).planned()
    assert trained(planned) == {"2.5 brand_new", "10 brand_new"}
    assert counts(planned) == {**dict.fromkeys(PER_RUN, 2), **PER_STUDY}


def test_a_method_with_a_pretrained_teacher_runs_after_it(project: Project) -> None:
    methods = {"supervised": {}, "data_distillation": {"teacher": "supervised"}}
    plan = project.edit(methods=methods, split={"percents": [2.5], "folds": [2]}).planned()
    order = [re.search(r"/(\w+)-[0-9a-f]{8}/", path)[1] for rule, path in plan if rule == "train"]  # type: ignore[index]
    assert order == ["supervised", "data_distillation"]
    project.edit(methods={"supervised": {}})
    assert trained(project.edit(methods=methods).planned()) == {"2.5 data_distillation", "10 data_distillation"}


def test_runs_of_a_split_begin_with_one_burn_in(project: Project) -> None:
    changed = project.edit(training={"burn_in": 100})
    planned = changed.planned()
    order = [re.search(r"/([\d.]+)pct.*/(\w+)-[0-9a-f]{8}/", path) for rule, path in planned if rule == "train"]
    for percent in ("2.5", "10"):
        methods = [match[2] for match in order if match and match[1] == percent]
        assert methods[0] == "burn_in" and sorted(methods[1:]) == ["mean_teacher", "strict", "supervised"]
    done = changed.snakemake("-n", "--quiet", "host", "--printshellcmds", "--config", "study=tiny.yaml")
    assert len(re.findall(r"-m pais_bench train .* --method \w+ --burn-in ", done.stdout)) == 2
    job = r"^rule train:\n.*?output: \S*/([\d.]+)pct\S*/(\w+)-[0-9a-f]{8}/.*?^    priority: (\d+)$"
    places = {f"{p} {m}": -int(place) for p, m, place in re.findall(job, done.stdout, re.MULTILINE | re.DOTALL)}
    assert " ".join(sorted(places, key=places.__getitem__)) == (
        "2.5 burn_in 10 burn_in 2.5 supervised 2.5 strict 2.5 mean_teacher 10 supervised 10 strict 10 mean_teacher"
    )
    changed.finish()  # runs that have trained these steps themselves, as before burn-ins were shared
    assert changed.planned() == []
    extended = changed.edit(methods={**STUDY["methods"], "loose": {"name": "mean_teacher"}})
    assert trained(extended.planned()) == {f"{p} {m}" for p in ("2.5", "10") for m in ("burn_in", "loose")}
    alone = changed.edit(methods={"supervised": {}}, split={"percents": [5], "folds": [1]})
    assert trained(alone.planned()) == {"5 supervised"}


def test_another_teacher_is_another_run(project: Project) -> None:
    methods = {"supervised": {}, "data_distillation": {"teacher": "supervised"}}
    first = {path for rule, path in project.edit(methods=methods).planned() if "data_distillation" in path}
    methods["supervised"] = {"training": {"lr": 0.5}}
    second = {path for rule, path in project.edit(methods=methods).planned() if "data_distillation" in path}
    assert len(first) == len(second) > 0 and not first & second


@pytest.mark.parametrize(
    ("networks", "methods", "message"),
    [
        ({}, {"data_distillation": {}}, "methods.data_distillation.teacher: missing; name a method of this study"),
        ({}, {"supervised": {"teacher": "supervised"}}, "methods.supervised.teacher: given; it has no use for it"),
        ({}, {"data_distillation": {"teacher": "nobody"}}, "'nobody' is no other method that trains 'small'"),
        ({}, {"data_distillation": {"teacher": "data_distillation"}}, "is no other method that trains 'small'"),
        ({}, {"supervised": {"training": {"stepps": 3}}}, "methods.supervised.training: unknown key 'stepps'"),
        ({"methods": ["pais"]}, {"supervised": {}}, "networks.small.methods: there is no method 'pais'"),
    ],
)
def test_an_impossible_grid_is_described_in_a_sentence(
    tmp_path: Path, networks: dict[str, Any], methods: dict[str, Any], message: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump({**STUDY, "networks": {"small": STUDY["networks"]["small"] | networks}, "methods": methods})
    )
    with pytest.raises(BenchError, match=re.escape(message)):
        load_study(path)


def test_a_network_may_be_trained_with_some_methods_only(tmp_path: Path) -> None:
    small = STUDY["networks"]["small"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "networks": {"small": small, "other": small | {"methods": ["strict"]}}}))
    runs = load_study(path).runs()
    assert [run.method.label for run in runs if run.network.label == "other"] == ["strict", "strict"]
    assert len(runs) == 8


def test_a_new_percent_plans_only_its_split_and_runs(project: Project) -> None:
    planned = project.edit(split={"percents": [2.5, 5, 10], "folds": [1]}).planned()
    assert counts(planned) == {"split": 1, **dict.fromkeys(PER_RUN, 3), **PER_STUDY}


def test_label_noise_plans_new_splits_beside_the_others_and_all_runs(project: Project) -> None:
    split = {**STUDY["split"], "label_noise": {"class_flip": 20, "missing": 2.5}}
    planned = project.edit(split=split).planned()
    assert counts(planned) == {"split": 2, **dict.fromkeys(PER_RUN, 6), **PER_STUDY}
    assert {path for rule, path in planned if rule == "split"} == {
        f"results/splits/tiny_shapes/soft_teacher/{percent}pct-fold1-missing2.5-classflip20.json"
        for percent in ("2.5", "10")
    }


def test_a_missing_imported_split_is_named_and_never_made(project: Project) -> None:
    imported = project.edit(split={**STUDY["split"], "family": "imported"})
    done = imported.snakemake("-n", "--config", "study=tiny.yaml")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    output = " ".join(done.stdout.split())
    assert "imported/2.5pct-fold1.json: missing; after `pais-bench prepare`, run `pais-bench import-split" in output
    assert "--percent 2.5 --fold 1" in output
    for percent in ("2.5", "10"):
        path = project.root / f"results/splits/tiny_shapes/imported/{percent}pct-fold1.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert counts(imported.planned()) == {**dict.fromkeys(PER_RUN, 6), **PER_STUDY}


def test_other_checkpoints_are_predicted_without_training(project: Project) -> None:
    planned = project.edit(also_evaluate=["student-last", "teacher-last"]).planned()
    assert counts(planned) == {"predict": 6, "evaluate": 6, **PER_STUDY}
    names = {Path(path).name for rule, path in planned if rule in ("predict", "evaluate")}
    assert names == {"predictions-student-last.json", "metrics-student-last.json"}
    assert counts(project.edit(report={"model": "student", "checkpoint": "best"}).planned()) == {
        "predict": 6,
        "evaluate": 6,
        **PER_STUDY,
    }


def test_changed_external_predictions_are_evaluated_again(project: Project) -> None:
    description = {"name": "theirs", "network": "small", "method": "gd", "percent": 10, "fold": 1}
    description |= {"split_family": "unknown", "source": "x"}
    (project.root / "theirs.yaml").write_text(yaml.safe_dump({**description, "predictions": "predictions.json"}))
    (project.root / "predictions.json").write_text("[]")
    project = project.edit(external=["theirs.yaml"])
    path = project.root / "results/external/tiny_shapes/theirs/metrics.json"
    (planned,) = [output for rule, output in project.planned() if rule == "import_predictions"]
    assert planned == "results/external/tiny_shapes/theirs/metrics.json"
    path.parent.mkdir(parents=True)
    path.touch()
    assert project.snakemake("--touch", "--config", "study=tiny.yaml", "--", planned).returncode == 0
    assert counts(project.planned()) == PER_STUDY
    (project.root / "predictions.json").touch()
    assert counts(project.planned()) == {"import_predictions": 1, **PER_STUDY}
    (project.root / "theirs.yaml").write_text(yaml.safe_dump(description))
    done = project.snakemake("-n", "--config", "study=tiny.yaml")
    assert done.returncode != 0 and "theirs.yaml: missing key 'predictions'" in done.stdout


def test_a_removed_method_repeats_the_report_only(project: Project) -> None:
    methods = {name: method for name, method in STUDY["methods"].items() if name != "mean_teacher"}
    assert counts(project.edit(methods=methods).planned()) == PER_STUDY


def test_a_dataset_option_repeats_everything(project: Project) -> None:
    dataset = {**STUDY["dataset"], "options": {"train": 50}}
    planned = counts(project.edit(dataset=dataset).planned())
    assert planned == {"prepare": 1, "split": 2, **dict.fromkeys(PER_RUN, 6), **PER_STUDY}


def test_other_files_below_the_root_prepare_again_and_a_root_that_moved_does_not(project: Project) -> None:
    root = write_squares(project.root / "data")
    dataset = {"name": "coco", "label": "squares", "root": "data", "options": OPTIONS}
    split = {"family": "stratified", "percents": [50], "folds": [1]}
    coco = project.edit(dataset=dataset, split=split, methods={"supervised": {}})
    done = coco.snakemake("--config", "study=tiny.yaml", "--", "results/datasets/squares/dataset.json")
    assert done.returncode == 0, done.stdout
    shutil.move(root, project.root / "moved")
    coco = coco.edit(dataset=dataset | {"root": "moved"})
    planned = counts(coco.planned())
    assert "prepare" not in planned and planned["train"] == 1
    edit(project.root / "moved/val.json", area=7)
    assert counts(coco.planned())["prepare"] == 1


def test_comments_and_the_path_of_the_study_repeat_nothing(project: Project) -> None:
    root = project.root
    (root / "elsewhere.yaml").write_text("# The same grid.\n" + (root / "tiny.yaml").read_text())
    for path in (root / "rules" / "runs.smk", root / "envs" / "torchvision.txt"):
        path.write_text("# A comment.\n" + path.read_text())
    assert project.planned(study="elsewhere.yaml") == []


def test_new_pins_of_a_backend_build_another_environment_and_train_again(project: Project) -> None:
    lock = project.root / "envs" / "torchvision.txt"
    lock.write_text(lock.read_text().replace("torchvision==", "torchvision==1"))
    planned = project.planned()
    assert counts(planned) == {"environment": 1, **dict.fromkeys(PER_RUN, 6), **PER_STUDY}
    (ready,) = (path for rule, path in planned if rule == "environment")
    assert not (project.root / ready).exists()


def test_a_rebuilt_environment_repeats_nothing(project: Project) -> None:
    (ready,) = project.root.glob(".envs/torchvision-*/READY")
    ready.touch()
    assert project.planned() == []


def test_an_interpreter_of_the_user_needs_no_environment(project: Project) -> None:
    shutil.rmtree(project.root / "results")
    shutil.rmtree(project.root / ".envs")
    assert "environment" not in counts(project.planned("python=/opt/python/bin/python"))


def test_conda_makes_the_environments_with_sdm_conda(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.root / "results")
    shutil.rmtree(project.root / ".envs")
    options = ("-n", "--quiet", "host", "--sdm", "conda", "--printshellcmds", "--config", "study=tiny.yaml")
    done = project.snakemake(*options, PATH=conda.write_fake_conda(tmp_path / "conda"))
    assert done.returncode == 0, done.stdout
    assert "rule environment" not in done.stdout and "envs/torchvision.yaml will be created" in done.stdout
    assert re.search(r"python -m pais_bench train .* --locked torchvision", done.stdout)


def test_the_runs_of_a_backend_may_be_left_out(project: Project) -> None:
    other = {"backend": "detectron2", "name": "mask_rcnn"}
    both = project.edit(networks={**STUDY["networks"], "other": other})
    assert counts(both.planned()) == {"environment": 1, **dict.fromkeys(PER_RUN, 6), **PER_STUDY}
    assert both.planned("backends=torchvision") == []
    done = both.snakemake("-n", "--config", "study=tiny.yaml", "backends=mmdet")
    assert done.returncode != 0 and "backends=mmdet: this study has detectron2, torchvision" in done.stdout


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("study=nowhere", "nowhere: no such study file"),
        ("study=typo.yaml", "typo.yaml: unknown key 'dataest'"),
    ],
)
def test_a_faulty_study_is_described_in_a_sentence(project: Project, config: str, message: str) -> None:
    (project.root / "typo.yaml").write_text(yaml.safe_dump({**STUDY, "dataest": {}}))
    done = project.snakemake("-n", "--config", config)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_what_would_stop_a_study_later_stops_it_before_the_first_job(project: Project, tmp_path: Path) -> None:
    (tmp_path / "cityscapesscripts").mkdir()
    (tmp_path / "cityscapesscripts/__init__.py").write_text("raise ModuleNotFoundError(name='cityscapesscripts')")
    path = os.pathsep.join((str(project.root), str(tmp_path)))
    edited = project.edit(metrics=["coco", "cityscapes"])
    for setting, message in (
        ("results=results", "the package 'cityscapesscripts' is not installed"),
        ("results={braces}", "Snakemake takes braces for wildcards; choose a folder without them"),
    ):
        command = [sys.executable, "-m", "snakemake", "-n", "--config", "study=tiny.yaml", setting]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=edited.root, env=environment, capture_output=True, text=True)
        assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
        assert message in " ".join(done.stdout.split()), done.stdout + done.stderr


def test_jobs_are_isolated_from_the_modules_of_a_cluster(project: Project, tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('a foreign package')")
    shutil.rmtree(project.root / "results")
    target, config = "results/datasets/tiny_shapes/dataset.json", ("--config", "study=tiny.yaml")
    study = project.edit(dataset={"name": "shapes", "label": "tiny_shapes", "options": {"train": 2, "val": 1}})
    # The controller has the variable as well, so its Python ignores it.
    command = (sys.executable, "-E", "-m", "snakemake", "--workflow-profile", "profiles/local", *config, "--", target)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=study.root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (study.root / target).exists(), done.stdout + done.stderr


def test_the_workflow_runs_from_another_folder(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(project.root / "tiny.yaml", elsewhere)
    command = [sys.executable, "-m", "snakemake", "-s", str(project.root / "Snakefile"), "-d", str(elsewhere), "-n"]
    environment = {**os.environ, "PYTHONPATH": str(project.root)}
    done = subprocess.run([*command, "--config", "study=tiny.yaml"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule train" in done.stdout and "rule environment" not in done.stdout, "that of the project is there"


def test_a_backend_without_a_lock_is_named(project: Project) -> None:
    (project.root / "envs" / "torchvision.txt").unlink()
    done = project.snakemake("-n", "--config", "study=tiny.yaml")
    assert done.returncode != 0
    assert "torchvision.txt: missing" in done.stdout
