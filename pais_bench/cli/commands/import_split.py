"""Make a split from a list of labelled images: ids or file names, one a line, a JSON list, or a COCO instances file."""

from __future__ import annotations

import hashlib
import json
import re
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.splits.draw import make_split
from pais_bench.splits.family import ImagePool, LabelledSet
from pais_bench.splits.split import require_objects, split_path, write_split
from pais_bench.study.split import IMPORTED


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, whose split.family is `imported`, the list, and the split that it becomes."""
    context.add_study(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="the labelled images")
    context.add_results(parser)
    context.add_split(parser)


def run(arguments: Namespace) -> None:
    """Write the split file; raise BenchError that names the first images that are unknown or repeated."""
    study = context.read_study(arguments)
    if study.split.family != IMPORTED:
        raise BenchError(
            f"split.family: study '{study.name}' has '{study.split.family}', whose splits are drawn; "
            f"set it to {IMPORTED} to give your own"
        )
    choice = context.find_split(study, arguments)
    store = context.open_store(study, arguments.results, "train")
    content = _read(arguments.file)
    ids = resolve(_entries(content, arguments.file), ImagePool.of(store), arguments.file)
    note, sha256 = f"imported from {arguments.file.name}", hashlib.sha256(content).hexdigest()
    split = make_split(store, study.dataset.label, choice, LabelledSet(ids, len(store.image_ids), note, sha256))
    require_objects(split, store)
    path = split_path(arguments.results, study.dataset.label, choice)
    write_split(path, split)
    print(f"{path}: {split.description}")


def resolve(entries: Sequence[int | str], pool: ImagePool, source: Path) -> list[int]:
    """Return the ids of images that are listed by id, or by file name with or without folders."""
    if not entries:
        raise BenchError(f"{source}: names no image; list the labelled ones")
    known = set(pool.ids)
    names: dict[str, list[int]] = {}
    if any(isinstance(entry, str) for entry in entries):
        for image_id in pool.ids:
            names.setdefault(pool.name(image_id), []).append(image_id)
    for entry in map(str, entries):
        if re.search(r"[\s,;#]", entry.removesuffix(Path(entry).name)):
            raise BenchError(f"{source}: '{entry}' may name several images; list one a line, by its file name alone")
    matches = [
        ([entry] if entry in known else []) if isinstance(entry, int) else names.get(Path(entry).name, [])
        for entry in entries
    ]
    unknown = [str(entry) for entry, ids in zip(entries, matches, strict=True) if not ids]
    if unknown:
        raise BenchError(
            f"{source}: {len(unknown)} of {len(entries)} images are not in the dataset, the first: "
            f"{', '.join(unknown[:3])}; list ids or file names of its train subset"
        )
    ambiguous = [str(entry) for entry, ids in zip(entries, matches, strict=True) if len(ids) > 1]
    if ambiguous:
        raise BenchError(f"{source}: the dataset has more than one image {ambiguous[0]}; list ids, not file names")
    repeated = [str(image_id) for image_id, count in Counter(ids[0] for ids in matches).items() if count > 1]
    if repeated:
        raise BenchError(
            f"{source}: {len(repeated)} images are repeated, the first by id: {', '.join(repeated[:3])}; list each once"
        )
    return [ids[0] for ids in matches]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a list of images") from error


def _entries(content: bytes, path: Path) -> list[int | str]:
    try:
        text = content.decode("utf-8-sig")
        if path.suffix != ".json":
            lines = (line.strip() for line in text.splitlines())
            return [int(line) if re.fullmatch(r"-?[0-9]+", line) else line for line in lines if line]
        entries = json.loads(text)
        if isinstance(entries, dict):
            entries = [image["id"] for image in entries["images"]]
        if all(isinstance(entry, (int, str)) and not isinstance(entry, bool) for entry in entries):
            return list(entries)
    except (ValueError, KeyError, TypeError):
        pass
    raise BenchError(f"{path}: not a list of images; give ids or file names, one a line, or a JSON list of them")
