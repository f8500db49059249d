"""Look at a folder of photos with annotations, and write a study that suits it, with its reasons.

The rules are in docs/reference/data.md. A single annotation file is divided into a training and a validation file
beside the study, and labels of another format than COCO are converted to these; the folder itself is not changed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench import plugins
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.sources import read_classes
from pais_bench.annotations.store import REPAIRED, Store, dataset_folder
from pais_bench.cli import context
from pais_bench.converters.coco_dialects import INIT, written_by
from pais_bench.converters.convert import COCO, UnknownFormat, formats, found_formats
from pais_bench.converters.drawn_pictures import drawn_pictures
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, image_files
from pais_bench.init.conversion import Conversion, convert_folder, marked
from pais_bench.init.device import find_device, find_weights, weight_folders
from pais_bench.init.division import divide
from pais_bench.init.facts import list_facts
from pais_bench.init.layout import Layout, NoCocoFile, SeveralCocoFiles, find_layout
from pais_bench.init.proposal import Proposal, propose, to_yaml
from pais_bench.init.summary import DataSummary, summarise
from pais_bench.init.unlabelled import list_unlabelled
from pais_bench.study.load import load_study
from pais_bench.whole_file import write_text


class Found(NamedTuple):
    """Hold the options of the dataset, its summary, and what is to be said about it, a line each.

    named are the resolved paths of its photos and of label images | classes are COCO's categories.
    """

    options: dict[str, str]
    summary: DataSummary
    notes: list[str]
    needs_repair: bool
    named: Collection[Path]
    classes: list[dict[str, Any]]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the folders, the format of the labels, the study file, its name, and whether it may be replaced."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="holds the images and their annotations")
    text = "format of the labels (default: COCO files, and without any what is found)"
    parser.add_argument("--format", choices=formats(), help=text)
    text = "its photos, but those that have labels, are further unlabelled images"
    parser.add_argument("--unlabelled", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--output", type=Path, default=Path("study.yaml"), help="study file (default: study.yaml)")
    parser.add_argument("--name", help="name of the study and its dataset (default: that of the folder)")
    parser.add_argument("--force", action="store_true", help="replace files of an earlier init")


def run(arguments: Namespace) -> None:
    """Write the study; raise BenchError for data without a study, and where a file of it is there already."""
    folder, output = arguments.folder, arguments.output
    if output.suffix not in (".yaml", ".yml"):
        raise BenchError(f"--output {output}: not the name of a study; end it in .yaml")
    name = arguments.name or re.sub(r"[^A-Za-z0-9_.]+", "_", folder.resolve().name).strip("_.") or "data"
    context.print_progress(f"{folder}: reading")
    parts = [output.with_name(f"{output.stem}-{subset}.json").resolve() for subset in ("train", "val")]
    if arguments.format:
        _require_absent([output, *parts], arguments.force)
        conversion = convert_folder(folder, parts, context.print_progress, arguments.format, _written_by_init(folder))
    else:
        conversion = _find_labels(arguments, parts)
    divided = dict(conversion.contents)
    _require_absent([output, *divided], arguments.force)
    found = _look(folder, conversion)
    if arguments.unlabelled:
        found, path, content = _add_unlabelled(arguments, found)
        divided[path] = content
    if others := _unnamed(folder, found.named):
        found.notes.append(f"image files that no subset names: {others}; --unlabelled FOLDER takes those of a folder")
    device = find_device()
    proposal = propose(found.summary, device, find_weights(weight_folders()))
    dataset = {"name": "coco", "label": name, "root": str(folder.resolve()), "options": found.options}
    facts = list_facts(found.summary, device)
    _write(output, to_yaml(name, dataset, [*facts, *found.notes], proposal), divided)
    _print_summary(arguments, found, facts, proposal, list(divided))


def _find_labels(arguments: Namespace, parts: list[Path]) -> Conversion:
    """Return the labels of the COCO files of a folder or, if it has none, those of another format.

    Several COCO files of one role are joined. Files that an earlier init made of other labels are used only where these
    labels are gone.
    """
    folder, replaced = arguments.folder, set(parts if arguments.force else ())
    earlier = _written_by_init(folder)
    try:
        return _read_coco(folder, parts, earlier | replaced)
    except NoCocoFile as error:
        _require_absent([arguments.output, *parts], arguments.force)
        format_ = COCO if isinstance(error, SeveralCocoFiles) else None
        try:
            return convert_folder(folder, parts, context.print_progress, format_, earlier)
        except UnknownFormat:
            if earlier - replaced:
                return _read_coco(folder, parts, replaced)
            raise error from None


def _read_coco(folder: Path, parts: list[Path], ignored: Collection[Path]) -> Conversion:
    """Return the COCO files of a folder, a single one divided in two, and the formats of other labels there."""
    layout = find_layout(folder, ignored)
    try:
        others = found_formats(folder)
    except (BenchError, OSError):  # labels that are not used may have any fault
        others = []
    notes = [f"not used: labels of {name}; --format {name} takes them in place of COCO files" for name in others]
    return Conversion(layout, _divide(layout, parts) if layout.val is None else {}, notes, others=others)


def _written_by_init(folder: Path) -> set[Path]:
    """Return the COCO files below a folder that an earlier init wrote, by absolute path."""
    return {path.resolve() for path in files_below(folder, ".json") if written_by(path) == INIT}


def _divide(layout: Layout, paths: list[Path]) -> dict[Path, str]:
    """Return the two files that one annotation file is divided into, by their path."""
    source = layout.train.annotations
    return marked(paths, divide(read_json_file(source), source, layout.train.images))


def _require_absent(paths: list[Path], force: bool) -> None:
    for path in paths:
        if path.exists() and not force:
            raise BenchError(f"{path}: is there already; give --force to replace it, or another --output")


def _look(folder: Path, conversion: Conversion) -> Found:
    """Prepare the dataset in a temporary folder, as `prepare --repair` does, and return its summary and notes."""
    coco, root = plugins.load("datasets", "coco"), folder.resolve()
    layout, divided = conversion.layout, conversion.contents
    options = _options(root, layout, list(divided))
    with tempfile.TemporaryDirectory() as scratch:
        drafts = {path: Path(scratch, path.name) for path in divided}
        for path, content in divided.items():
            drafts[path].write_text(content, encoding="utf-8")
        present = {key: str(drafts.get(root / value, value)) for key, value in options.items()}
        lines: list[str] = []
        prepared = dataset_folder(Path(scratch), "data")
        dataset = coco.Dataset(coco.Options(**present), root)
        try:
            dataset.prepare(prepared, "data", repair=True, progress=lines.append, verify_images=False)
        except BenchError as error:
            others = "".join(f", or choose --format {name}" for name in conversion.others)
            said = _renamed(str(error), drafts.values(), [layout.train.annotations] * 2)
            raise BenchError(f"{said}{others}") from error
        told = [line for line in map(_as_planned, lines) if line.startswith(("warning", "`prepare --repair`"))]
        notes = [*conversion.notes, *(_renamed(line, drafts.values(), drafts).replace(f"{root}/", "") for line in told)]
        notes += [f"not used: {path}" for path in layout.unused]
        stores = {name: Store.open(prepared, name) for name in Store.subsets(prepared)}
        photos = [store.path(number) for store in stores.values() for number in store.image_ids]
        if outside := [path for path in photos if not Path(os.path.abspath(path)).is_relative_to(root)]:
            notes.append(f"{len(outside)} photos are outside of {folder}, the first: {outside[0]}")
        named = {path.resolve() for path in [*conversion.labels, *photos]}
        needs_repair, classes = (prepared / REPAIRED).exists(), read_classes(prepared) or []
        return Found(options, summarise(prepared), notes, needs_repair, named, classes)


def _as_planned(line: str) -> str:
    """Return a message of what `prepare --repair` did as one of what it will do: here it changed only drafts."""
    for done, planned in (("dropped ", "drops"), ("changed ", "changes")):
        if line.startswith(done):
            return f"`prepare --repair` {planned} {line.removeprefix(done)}"
    return line


def _add_unlabelled(arguments: Namespace, found: Found) -> tuple[Found, Path, str]:
    """Return the data with the photos of --unlabelled, the path of the file that lists these, and its content."""
    folder, root, output = arguments.unlabelled, arguments.folder.resolve(), arguments.output
    path = output.with_name(f"{output.stem}-unlabelled.json").resolve()
    _require_absent([path], arguments.force)
    records, notes = list_unlabelled(folder, found.named, context.print_progress)
    names = {"unlabelled_annotations": str(path), "unlabelled_images": _below(folder, root)}
    images = {name: count for name, count in found.summary.images.items() if name != "unlabelled"}
    summary = replace(found.summary, images={**images, "unlabelled": len(records)})
    named = {*found.named, *((folder / record["file_name"]).resolve() for record in records)}
    added = found._replace(
        options={**found.options, **names}, summary=summary, notes=[*found.notes, *notes], named=named
    )
    return added, path, json.dumps({"images": records, "categories": found.classes}) + "\n"


def _unnamed(folder: Path, named: Collection[Path]) -> int:
    """Return how many image files below the folder are neither named by the dataset nor made from photos."""
    drawn = {(folder / file).resolve() for file in drawn_pictures(folder, named)}
    return len({(folder / file).resolve() for file in image_files(folder)} - drawn - {*named})


def _renamed(text: str, drafts: Iterable[Path], paths: Iterable[Path]) -> str:
    """Return a message that names paths in place of drafts."""
    for draft, path in zip(drafts, paths, strict=False):
        text = text.replace(str(draft), str(path))
    return text


def _options(root: Path, layout: Layout, divided: list[Path]) -> dict[str, str]:
    """Return the options of the dataset; a path is relative to the root if it is below it, else absolute."""
    train, val = layout.train, layout.val or layout.train
    annotations = divided or [train.annotations, val.annotations]
    options = {
        "train_annotations": _below(annotations[0], root),
        "train_images": _below(train.images, root),
        "val_annotations": _below(annotations[1], root),
        "val_images": _below(val.images, root),
    }
    if layout.unlabelled:
        options["unlabelled_annotations"] = _below(layout.unlabelled.annotations, root)
        options["unlabelled_images"] = _below(layout.unlabelled.images, root)
    return options


def _below(path: Path, root: Path) -> str:
    path = path.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _write(output: Path, text: str, divided: Mapping[Path, str]) -> None:
    """Write the files, the study last, once it loads."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, output.name)
        draft.write_text(text, encoding="utf-8")
        try:
            load_study(draft)
        except BenchError as error:
            raise BenchError(str(error).replace(str(draft), str(output))) from error
    try:
        for path, content in [*divided.items(), (output, text)]:
            write_text(path, content)
    except PermissionError as error:
        raise BenchError(
            f"{output}: may not be written there; let --output name a file in a folder of yours"
        ) from error


def _print_summary(
    arguments: Namespace, found: Found, facts: list[str], proposal: Proposal, divided: list[Path]
) -> None:
    """Print what was found and chosen, and the next command."""
    split, training, views, network = (proposal.values(key) for key in ("split", "training", "input", "network"))
    print("\n".join([*facts, *found.notes]))
    if divided:
        print(f"Written beside the study: {', '.join(path.name for path in divided)}.")
    print(
        f"Chosen: {split['family']} splits at {', '.join(map(str, split['percents']))} %, {len(split['folds'])} folds;"
    )
    print(f"  Mask R-CNN with {network['backbone']}, views of {views['min_size_test']} px, {training['steps']} steps.")
    if "pretrained_backbone" not in network:
        print("  No pretrained weights are at hand, and without them a network learns little from few photos:")
        print("  `pais-bench fetch weights` gets some, then give this command again with --force.")
    print(f"  {proposal.time}.")
    study = shlex.quote(str(arguments.output))
    context.print_progress(f"{arguments.output}: written, with the reasons as comments")
    print(f"Next: {f'pais-bench prepare {study} --repair && ' if found.needs_repair else ''}pais-bench run {study}")
