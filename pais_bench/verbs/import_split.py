"""Make a split of a list of images: ids or file names, one a line, a JSON list, or a COCO instances file."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pais_bench import splits
from pais_bench.config import Study
from pais_bench.pools import Drawn, Pool
from pais_bench.split_choice import IMPORTED, SplitChoice
from pais_bench.store import Store, dataset_folder
from pais_bench.study_file import load_study
from pais_bench.types import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Name the study, the list, and which split it is to be."""
    parser.add_argument("study", metavar="STUDY", help=f"study whose split.family is {IMPORTED}")
    parser.add_argument("file", metavar="FILE", type=Path, help="the labelled images")
    parser.add_argument("--percent", type=float, required=True, help="percent that the study calls it by")
    parser.add_argument("--fold", type=int, required=True, help="fold that the study calls it by")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(arguments: Namespace) -> None:
    """Write the split file; raise BenchError that names the first images that are unknown or repeated."""
    study = load_study(arguments.study)
    choice = _choice(study, arguments.percent, arguments.fold)
    store = Store.open(dataset_folder(arguments.results, study.dataset.label), "train")
    content = _read(arguments.file)
    ids = resolve(_entries(content, arguments.file), Pool.of(store), arguments.file)
    note, sha256 = f"imported from {arguments.file.name}", hashlib.sha256(content).hexdigest()
    split = splits.make_split(store, study.dataset.label, choice, Drawn(ids, len(store.image_ids), note, sha256))
    path = splits.split_path(arguments.results, study.dataset.label, choice)
    splits.write_split(path, split)
    print(f"{path}: {split.told}")


def resolve(entries: Sequence[int | str], pool: Pool, source: Path) -> list[int]:
    """Give the ids of images that are named by id, or by file name with or without folders."""
    if not entries:
        raise BenchError(f"{source}: names no image; list the labelled ones")
    known = set(pool.ids)
    names: dict[str, list[int]] = {}
    if any(isinstance(entry, str) for entry in entries):
        for number in pool.ids:
            names.setdefault(pool.name(number), []).append(number)
    found = [
        ([entry] if entry in known else []) if isinstance(entry, int) else names.get(Path(entry).name, [])
        for entry in entries
    ]
    unknown = [str(entry) for entry, ids in zip(entries, found, strict=True) if not ids]
    if unknown:
        raise BenchError(
            f"{source}: {len(unknown)} of {len(entries)} images are not in the dataset, the first: "
            f"{', '.join(unknown[:3])}; list ids or file names of its train part"
        )
    several = [str(entry) for entry, ids in zip(entries, found, strict=True) if len(ids) > 1]
    if several:
        raise BenchError(f"{source}: the dataset has more than one image {several[0]}; list ids instead of file names")
    twice = [str(number) for number, times in Counter(ids[0] for ids in found).items() if times > 1]
    if twice:
        raise BenchError(
            f"{source}: {len(twice)} images are there twice, the first by id: {', '.join(twice[:3])}; list each once"
        )
    return [ids[0] for ids in found]


def _choice(study: Study, percent: float, fold: int) -> SplitChoice:
    if study.split.family != IMPORTED:
        raise BenchError(
            f"split.family: study '{study.name}' has '{study.split.family}', whose splits are drawn; "
            f"set it to {IMPORTED} to give your own"
        )
    if percent not in study.split.percents or fold not in study.split.folds:
        known = f"percents {list(study.split.percents)} and folds {list(study.split.folds)}"
        raise BenchError(f"--percent {percent:g} --fold {fold}: not in study '{study.name}'; it has {known}")
    return SplitChoice(family=IMPORTED, percent=percent, fold=fold, corruption=study.split.corruption)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a list of images") from error


def _entries(content: bytes, path: Path) -> list[int | str]:
    try:
        text = content.decode()
        if path.suffix != ".json":
            lines = (line.strip() for line in text.splitlines())
            return [int(line) if line.isascii() and line.isdigit() else line for line in lines if line]
        listed = json.loads(text)
        if isinstance(listed, dict):
            listed = [image["id"] for image in listed["images"]]
        if all(isinstance(entry, (int, str)) and not isinstance(entry, bool) for entry in listed):
            return list(listed)
    except (ValueError, KeyError, TypeError):
        pass
    raise BenchError(f"{path}: not a list of images; give ids or file names, one a line, or a JSON list of them")
