"""Check every bundle of a folder against the truth, evaluate it there, and keep what was evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pais_bench import __version__
from pais_bench.annotations.store import ProgressCallback
from pais_bench.errors import BenchError, describe_fault
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.evaluation.coco.check import checked_records, have_masks
from pais_bench.evaluation.evaluate import evaluate
from pais_bench.evaluation.results_file import named_in_errors, read_records
from pais_bench.evaluation.significance import Floats
from pais_bench.leaderboard.bundle import METRICS, PREDICTIONS, Manifest, read_bundle
from pais_bench.leaderboard.submission import CLAIMS, Submission, read_submission
from pais_bench.leaderboard.truth import Truth
from pais_bench.runs.files import RUN
from pais_bench.whole_file import write_text

TOLERANCE = 1e-6
"""By how much a claimed number, 0..1, may differ from the evaluated one: other versions of NumPy round otherwise."""

Content = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """Hold a bundle that fits, with its numbers as they were evaluated here.

    AP50: 0..1 | samples: mask AP 0..1 as f64[1+B], on the images and on bootstrap samples of them.
    """

    file: str
    manifest: Manifest
    submission: Submission
    AP50: float
    samples: Floats


@dataclass
class Entries:
    """Hold the bundles that fit, and the reason why each of the others does not, by file name."""

    fitting: list[Entry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def read_entries(folder: Path, truths: Mapping[str, Truth], evaluated: Path, progress: ProgressCallback) -> Entries:
    """Read every file below a folder that is not hidden, in the order of their names; evaluated keeps the numbers.

    Whatever is wrong with a bundle is its reason; only a fault of the machine is raised. BenchError where there is no
    file.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise BenchError(f"{folder}: holds no bundle; put there what `pais-bench submit` writes")
    entries = Entries()
    for number, name in enumerate(map(str, names), start=1):
        place = f"{number} of {len(names)}, {name}"
        try:
            entry = _read(folder, name, truths, evaluated)
            _require_new(entry, entries.fitting)
        except Exception as error:  # the bundle is somebody else's, and must not cost the others
            if not isinstance(error, BenchError) and describe_fault(error):
                raise
            reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            entries.refused[name] = reason
            progress(f"{place}: refused: {reason}")
        else:
            entries.fitting.append(entry)
            progress(f"{place}: mask AP {100 * entry.samples[0]:.2f}")
    return entries


def _read(bundles: Path, name: str, truths: Mapping[str, Truth], evaluated: Path) -> Entry:
    """Return the entry of a bundle; raise BenchError for the first thing that does not fit, the cheapest first."""
    with TemporaryDirectory() as unpacked:
        folder = Path(unpacked)
        try:
            manifest = read_bundle(bundles / name, folder)
            submission = read_submission(folder / RUN, folder / METRICS, manifest.checkpoint)
            label = submission.run.dataset
            if label not in truths:
                raise BenchError(f"is of the dataset '{label}', whose truth was not given; add --truth {label}=PATH")
            truths[label].require_same_data(submission, manifest.validation)
            content = _evaluate(folder / PREDICTIONS, manifest, truths[label], evaluated)
        except BenchError as error:
            raise BenchError(str(error).replace(f"{folder}/", "")) from error
    _require_claims(submission.claims, content)
    samples = np.array(content["AP"], dtype=np.float64)
    return Entry(name, manifest, submission, content["segm"]["AP50"], samples)


def _evaluate(predictions: Path, manifest: Manifest, truth: Truth, folder: Path) -> Content:
    """Return the numbers of CLAIMS and AP on samples of the images: kept from an earlier call, or computed."""
    key = {
        **BootstrapAP.key,
        "predictions": manifest.members[PREDICTIONS],
        "images": truth.validation.digest,
        "version": __version__,
    }
    path = folder / f"{key['predictions']}.json"
    try:
        kept: Content = json.loads(path.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in key} == key:
            return kept
    except (FileNotFoundError, ValueError, AttributeError):
        pass
    records, ground_truth = read_records(predictions), truth.validation.coco_dict()
    with named_in_errors(predictions):
        if not have_masks(records):
            raise BenchError("boxes alone, and the leaderboard ranks mask AP; submit masks")
        numbers = evaluate(["coco"], ground_truth, records)
        samples = truth.bootstrap.compute(checked_records(ground_truth, records))
    content = {**key, **{kind: numbers[kind] for kind in CLAIMS}, **samples}
    write_text(path, json.dumps(content) + "\n")
    return content


def _require_claims(claims: Mapping[str, Mapping[str, Any]], content: Content) -> None:
    """Raise BenchError where a number of metrics.json is another than the evaluated one."""
    for kind in CLAIMS:
        for name, number in content[kind].items():
            claim = claims.get(kind, {}).get(name)
            if not _is_close(claim, number):
                raise BenchError(
                    f"{METRICS}: claims {kind} {name} {_percent(claim)}, and the predictions have {_percent(number)}; "
                    f"run `pais-bench evaluate` again"
                )


def _is_close(claim: Any, number: float | None) -> bool:
    if claim is None or number is None:
        return claim is number
    return type(claim) in (int, float) and abs(claim - number) <= TOLERANCE


def _percent(number: Any) -> str:
    return f"{100 * number:.4f}" if type(number) in (int, float) else f"{number!r:.40}"


def _require_new(entry: Entry, others: Sequence[Entry]) -> None:
    """Raise BenchError where a bundle has the run or the predictions of one before it."""
    for other in others:
        if other.submission.run.dataset != entry.submission.run.dataset:
            continue
        if other.manifest.members[PREDICTIONS] == entry.manifest.members[PREDICTIONS]:
            raise BenchError(f"the same predictions as {other.file}; submit a run once")
        if _identity(other) == _identity(entry):
            raise BenchError(f"the same run as {other.file}, with other predictions; submit a run once")


def _identity(entry: Entry) -> tuple[str, ...]:
    return entry.manifest.by, entry.manifest.checkpoint, entry.submission.run.digest
