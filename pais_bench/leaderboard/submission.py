"""Read the run, the record and the claimed metrics of a submission, and check that they agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pais_bench.annotations.json_file import read_json_file
from pais_bench.errors import BenchError
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.study.split import SplitChoice

CLAIMS = ("segm", "bbox")
"""The protocols whose numbers are evaluated again; those of other metrics are not read."""


@dataclass(frozen=True)
class Submission:
    """Hold a run, and what its run.json and metrics.json say of it.

    data: sha256 of the dataset that it was trained on, None where it was not recorded | split_sha256: of its labels |
    claims: the numbers of its metrics.json by protocol and name, 0..1.
    """

    run: Run
    data: str | None
    split_sha256: str
    claims: Mapping[str, Mapping[str, Any]]

    @property
    def configuration(self) -> str:
        """Return the digest of all options of the run but its fold: the trainings of one row have the same."""
        return _without_fold(self.run).digest


def read_submission(record_path: Path, metrics_path: Path, checkpoint: ModelCheckpoint) -> Submission:
    """Read run.json and metrics.json.

    Raises BenchError that names the file, where one of them is not what the commands write, where the training is not
    complete, where it is one of `oracle`, or where the two are of different runs or checkpoints.
    """
    record, metrics = _mapping(record_path, "run", "split"), _mapping(metrics_path)
    run = parse(Run, record["run"], str(record_path))
    if run.method.name == "oracle":
        raise BenchError(f"{record_path}: oracle learns the labels that methods must not see; submit runs of methods")
    if record.get("digest") != run.digest:
        raise BenchError(
            f"{record_path}: records the digest {str(record.get('digest'))[:8]}, and its options have {run.digest}; "
            f"train the run again"
        )
    steps = record.get("steps")
    if not isinstance(steps, int) or steps < run.training.steps:
        raise BenchError(f"{record_path}: trained for {steps} of {run.training.steps} steps; train it to its end")
    split = record["split"]
    choice = run.split.model_dump(mode="json")
    same = all(split.get(key) == choice.get(key) for key in SplitChoice.model_fields)
    if not same or split.get("dataset") != run.dataset or not isinstance(split.get("sha256"), str):
        raise BenchError(f"{record_path}: its split is another one than its options name; train the run again")
    if metrics.get("digest") != run.digest:
        raise BenchError(
            f"{metrics_path}: of run {str(metrics.get('digest'))[:8]}, not of {run.digest}; run `pais-bench evaluate` "
            f"again"
        )
    if f"{metrics.get('model')}-{metrics.get('checkpoint')}" != checkpoint:
        raise BenchError(f"{metrics_path}: not of the checkpoint {checkpoint}; run `pais-bench evaluate` again")
    data = record.get("data")
    claims = {kind: metrics[kind] for kind in CLAIMS if isinstance(metrics.get(kind), dict)}
    return Submission(run, data if isinstance(data, str) else None, split["sha256"], claims)


def _mapping(path: Path, *keys: str) -> dict[str, Any]:
    """Return a JSON mapping that has a mapping under each of these keys."""
    content = read_json_file(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in keys):
        raise BenchError(f"{path}: not what pais-bench writes; make it again")
    return content


def _without_fold(run: Run) -> Run:
    teacher = _without_fold(run.teacher) if run.teacher else None
    return run.model_copy(update={"split": run.split.model_copy(update={"fold": 0}), "teacher": teacher})
