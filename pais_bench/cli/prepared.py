"""Check what a command builds on: the prepared dataset, what was trained on it, and the folder of the report."""

from __future__ import annotations

import json
from pathlib import Path

from pais_bench import plugins
from pais_bench.annotations.sources import (
    Hashes,
    Origin,
    identify,
    read_classes,
    read_content,
    read_hashes,
    read_origin,
)
from pais_bench.annotations.store import Store, dataset_folder
from pais_bench.errors import BenchError
from pais_bench.evaluation import evaluate
from pais_bench.runs import trained_data
from pais_bench.runs.files import CHECKPOINT, RUN, best_checkpoint
from pais_bench.study.load import load_study, study_path
from pais_bench.study.resources import check_batch_sizes, resources_for
from pais_bench.study.run import Run
from pais_bench.study.study import DatasetChoice, Study
from pais_bench.whole_file import write_text

WRITER = "study.json"
WEIGHTS = ("pretrained_backbone", "checkpoint", "sam", "clip")
"""Options that name a file or a folder of weights."""


def read_present(choice: DatasetChoice, folder: Path) -> tuple[Origin, Hashes]:
    """Return what a study's dataset would be prepared from now, and the hashes of its annotation files.

    Where the root is not on this machine, as beside a copy of the results, the recorded origin is returned.
    """
    dataset, recorded = plugins.build("datasets", choice.name, choice.options, choice.root), read_origin(folder)
    if choice.root is None or not hasattr(dataset, "sources"):
        return Origin(choice.name, choice.options, None, None), {}
    root = str(choice.root.resolve())
    if not choice.root.is_dir():
        sha256 = recorded.sha256 if recorded and recorded[:2] == (choice.name, choice.options) else None
        return Origin(choice.name, choice.options, root, sha256), {}
    known = read_hashes(folder) if recorded and recorded.root == root else {}
    sha256, hashes = identify(dataset.sources(), known)
    return Origin(choice.name, choice.options, root, sha256), hashes


def require_own_label(choice: DatasetChoice, results: Path, present: Origin) -> None:
    """Raise BenchError where the label's folder holds the dataset of another root, which is still there."""
    folder = dataset_folder(results, choice.label)
    recorded = read_origin(folder)
    if recorded is None or recorded.root is None or recorded.root == present.root:
        return
    if recorded.sha256 != present.sha256 and Path(recorded.root).is_dir():
        raise BenchError(
            f"{folder}: prepared from {recorded.root}, and this study's dataset.root is {present.root}, whose files "
            f"differ; give this study a dataset.label of its own, or remove the folder to prepare it from here"
        )


def open_stores(study: Study, results: Path, *subsets: str) -> dict[str, Store]:
    """Open subsets (train, val, unlabelled; all where none is named) of the study's prepared dataset.

    Raises BenchError where it is not prepared, or was prepared from other files or options than the study has now.
    A root that was moved is followed.
    """
    choice, folder = study.dataset, dataset_folder(results, study.dataset.label)
    names, recorded = subsets or Store.subsets(folder), read_origin(folder)
    if recorded is None:
        return {name: Store.open(folder, name) for name in names}
    present, _ = read_present(choice, folder)
    require_own_label(choice, results, present)
    if recorded[:2] != present[:2]:
        raise BenchError(
            f"{folder}: prepared as {recorded.dataset} with the options {recorded.options}, and study '{study.name}' "
            f"has {present.dataset} with {present.options}; run `pais-bench prepare` again, or give dataset.label"
        )
    if recorded.sha256 != present.sha256:
        raise BenchError(
            f"{folder}: the files below {present.root} were changed since it was prepared; run `pais-bench prepare` "
            f"again, and the commands after it"
        )
    moved = (Path(recorded.root), Path(present.root)) if recorded.root and present.root else None
    return {name: Store.open(folder, name, moved) for name in names}


def require_before_jobs(study: Study, source: str, results: Path) -> None:
    """Raise BenchError for what would stop a study after its first job: before hours of training, not after them.

    source is the study as named on a command line. Checked are the results folder, the batches, the label of the
    dataset, the folder of the report, and the packages and classes of the metrics.
    """
    require_folder(results)
    train = resources_for(study.resources, "train")
    for run in study.runs():
        check_batch_sizes(run.training, train.devices, train.accumulate or 1)
    folder = dataset_folder(results, study.dataset.label)
    recorded = read_origin(folder)
    if recorded and recorded.root and study.dataset.root and recorded.root != str(study.dataset.root.resolve()):
        require_own_label(study.dataset, results, read_present(study.dataset, folder)[0])
    require_own_report(study, source, results)
    other = recorded is not None and recorded[:2] != (study.dataset.name, study.dataset.options)
    evaluate.require(study.metrics, None if other else read_classes(folder))


def absent_weights(study: Study) -> list[str]:
    """Return a sentence for each file of weights that an option of the study names and that is not there."""
    options = {f"networks.{label}.options": choice.options for label, choice in study.networks.items()}
    options |= {f"methods.{label}.options": choice.options for label, choice in study.methods.items()}
    return [
        f"{place}.{key}: {values[key]} is not there; `pais-bench fetch` has what can be downloaded"
        for place, values in options.items()
        for key in WEIGHTS
        if values.get(key) and not Path(str(values[key])).expanduser().exists()
    ]


def require_folder(results: Path) -> None:
    """Raise BenchError where the results folder, or one that it is to lie in, is a file."""
    for path in (results, *results.parents):
        if path.exists() and not path.is_dir():
            raise BenchError(f"{path}: is a file; let --results name a folder")


def require_own_report(study: Study, source: str, results: Path) -> None:
    """Raise BenchError where another study of this name, which is still there, wrote the report folder."""
    folder = results / "reports" / study.name
    writer = read_writer(folder)
    if writer is None or writer == str(study_path(source).resolve()) or not Path(writer).is_file():
        return
    try:
        same = load_study(writer) == load_study(source)
    except BenchError:
        same = False
    if not same:
        raise BenchError(
            f"{folder}: written by {writer}, another study of the name '{study.name}'; give this study a name of its "
            f"own, or remove the folder"
        )


def read_writer(report: Path) -> str | None:
    """Return the path of the study that wrote a report folder; None where none is recorded."""
    try:
        return str(json.loads((report / WRITER).read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def record_writer(source: str, report: Path) -> None:
    """Record the path of the study that writes a report folder."""
    write_text(report / WRITER, json.dumps({"study": str(study_path(source).resolve())}) + "\n")


def find_burn_in(study: Study, run: Run, results: Path) -> str:
    """Return the folder below results of the trained burn-in that a run begins with; nothing where it is not there.

    Nothing too where it was trained on other data than the prepared one, or kept no best checkpoint that the study has.
    """
    if run.burn_in is None or run.burn_in.folder not in study.shared_burn_ins():
        return ""
    folder, files = results / run.burn_in.folder, [RUN, *(best_checkpoint(model) for model in study.best_models)]
    if not all((folder / file).exists() for file in files):
        return ""
    other = trained_data.is_other(folder, read_content(dataset_folder(results, run.dataset)))
    return "" if other else str(run.burn_in.folder)


def require_trained(run: Run, results: Path) -> None:
    """Raise BenchError where a run was not trained to its end, or on other data than the prepared one."""
    folder = results / run.folder
    if (folder / CHECKPOINT).exists() and not (folder / RUN).exists():
        raise BenchError(f"{folder}: its training was stopped before its end; `pais-bench train` continues it")
    trained_data.require_same(folder, read_content(dataset_folder(results, run.dataset)))
