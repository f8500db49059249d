"""Evaluate predictions of another codebase for the tables of a study: a COCO results file and a YAML about it.

The YAML has the keys name, network, method, percent, fold, split_family (one of ours, or unknown), source and
predictions, the results file. The study names the YAML under `external`; the workflow then calls this by itself.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench import evaluation, external
from pais_bench.config import Study
from pais_bench.result_files import of_file, read_records
from pais_bench.store import Store, dataset_folder, write_text
from pais_bench.study_file import load_study
from pais_bench.types import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Name the study, and which of its external predictions."""
    parser.add_argument("study", metavar="STUDY", help="study that names the predictions under external")
    parser.add_argument("--name", action="append", help="name of external predictions (default: all)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(arguments: Namespace) -> None:
    """Evaluate and keep them; raise BenchError for a name that the study lacks, or a file that does not fit."""
    study = load_study(arguments.study)
    known = {one.name: one for one in external.read_all(study)}
    asked = arguments.name or list(known)
    for name in asked or [""]:
        if name not in known:
            told = f"it has {', '.join(known)}" if known else "list the YAML that describes them under 'external'"
            raise BenchError(f"{arguments.study}: no external predictions '{name}'; {told}")
    for name in asked:
        found = measure(study, known[name], arguments.results)
        folder = arguments.results / known[name].folder(study.dataset.label)
        print(f"{folder}: mask AP {100 * (found['segm']['AP'] or 0):.1f}, {known[name].source}")


def measure(study: Study, described: external.External, results: Path) -> dict[str, Any]:
    """Evaluate predictions as those of a run, and keep them; give what metrics.json then holds.

    Writes predictions.json, a copy, bootstrap.json and metrics.json into the folder of the predictions.
    """
    from pais_bench.draws import Draws  # here, as every verb is loaded at every start

    records = read_records(described.predictions)
    store = Store.open(dataset_folder(results, study.dataset.label), "val")
    with of_file(described.predictions):
        found = evaluation.measure(study.metrics, store.coco_dict(), records, study.dataset.root)
    folder = results / described.folder(study.dataset.label)
    write_text(folder / "predictions.json", json.dumps(records) + "\n")
    Draws(store).of(folder / "predictions.json")
    content = {"external": described.told, "images": len(store.image_ids), **found}
    write_text(folder / "metrics.json", json.dumps(content) + "\n")
    return content
