"""Convert the labels of a folder without a COCO file to the two annotation files of its study."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.coco_dialects import INIT, mark
from pais_bench.converters.convert import convert, find_format
from pais_bench.errors import BenchError
from pais_bench.init.division import divide
from pais_bench.init.layout import Layout, Part

CLASS_NAME = "object"
"""Class of the objects of formats that have none."""


class Conversion(NamedTuple):
    """Hold a layout, the contents of files to write by path, notes, and label files.

    The annotation file of converted labels is their folder | others are formats of other labels that are there too.
    """

    layout: Layout
    contents: dict[Path, str]
    notes: list[str]
    labels: Collection[Path] = ()
    others: Collection[str] = ()


def convert_folder(
    folder: Path,
    paths: Sequence[Path],
    progress: Callable[[str], None],
    format_: str | None = None,
    ignored: Collection[Path] = (),
) -> Conversion:
    """Return the labels of a folder as a training and a validation file of these paths; nothing is written.

    The format is found where none is given. Labels of one subset are divided by photo. ignored COCO files, by absolute
    path, do not count. Raises BenchError for unknown formats and faulty labels.
    """
    format_ = format_ or find_format(folder, ignored)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, paths[0].name.replace("-train.json", ".json"))
        earlier = {*ignored, *(path.resolve() for path in paths)}
        converted = convert(folder, format_, CLASS_NAME, out, False, progress, ignored=earlier)
        contents = {subset: read_json_file(path) for subset, path in converted.files.items()}
        lines = list(converted.lines)
        for subset, path in converted.files.items():  # which are not the files that are written
            lines = [line.replace(f"{path}: ", f"{subset or 'labels'}: ", 1) for line in lines]
    notes = [f"The labels are of the format {format_}; `pais-bench import-data` converts them alone.", *lines]
    texts = marked(paths, _parts(folder, contents, notes))
    return Conversion(Layout(Part(folder, folder), None, None, ()), texts, notes, converted.labels)


def marked(paths: Sequence[Path], contents: Sequence[Any]) -> dict[Path, str]:
    """Return the text of each COCO file, which says that init wrote it."""
    return {path: json.dumps(mark(content, INIT)) + "\n" for path, content in zip(paths, contents, strict=True)}


def _parts(folder: Path, contents: dict[str, Any], notes: list[str]) -> tuple[Any, Any]:
    """Return the training and the validation file; a test set with objects stands for an absent validation set."""
    if "val" not in contents and len(contents) > 1 and "test" in contents and not contents["test"]["annotations"]:
        notes.append("not used: subset test, which has no object")
        contents = {name: content for name, content in contents.items() if name != "test"}
    if len(contents) == 1:
        notes.append("They are one subset, and are divided by photo.")
        (content,) = contents.values()
        return divide(content, folder, folder)
    evaluation = "val" if "val" in contents else "test"
    if not {"train", evaluation} <= set(contents):
        found = ", ".join(name or "others" for name in contents)
        raise BenchError(f"{folder}: its subsets are {found}; name one folder train and one val, or have no subsets")
    notes += [f"not used: subset {name or 'others'}" for name in contents if name not in ("train", evaluation)]
    return contents["train"], contents[evaluation]
