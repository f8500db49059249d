"""Convert a folder of labels: find its format, write a COCO file for each subset, and say what was found."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench import plugins
from pais_bench.converters.coco_dialects import NEW_PATH, coco_files, has_masks, rewrite
from pais_bench.converters.coco_file import Classes, CocoFile
from pais_bench.converters.formats.base import ConverterBase, Item, LeftOut, MissingPhoto, Photo
from pais_bench.errors import BenchError
from pais_bench.images.check import in_threads
from pais_bench.images.files import require_data_folder
from pais_bench.whole_file import open_whole, write_text

COCO = "coco"
"""The format of coco_dialects, which is no plugin, as it keeps the records."""
GIVE_WAY = ("label_images", "rle_csv")
"""Formats that tools often write as a second copy of other labels, such as pictures or a CSV of masks."""


class UnknownFormat(BenchError):
    """Report a folder without labels of a known format."""


class Converted(NamedTuple):
    """Hold the written files by subset, what was found and left out, a line each, and the files of labels."""

    files: Mapping[str, Path]
    lines: Sequence[str]
    labels: Collection[Path] = ()


def formats() -> list[str]:
    """Return the names of all formats."""
    return [*plugins.names("converters"), COCO]


def found_formats(folder: Path) -> list[str]:
    """Return the formats of the labels of a folder, but COCO."""
    folder = Path(os.path.abspath(folder))
    return [name for name in plugins.names("converters") if _converter(name).is_format(folder)]


def find_format(folder: Path, ignored: Collection[Path] = ()) -> str:
    """Return the format of a folder; raise UnknownFormat where there is none, BenchError where there are several.

    A COCO file may come from an earlier conversion, so that `coco` is returned only if there are no other labels, or
    only such of GIVE_WAY beside COCO files with masks. Those of GIVE_WAY are not returned if there is another format,
    nor the first of them beside the second. ignored COCO files, by absolute path, do not count.
    """
    require_data_folder(folder, "photos and labels")
    found = found_formats(folder)
    coco = [path for path in coco_files(folder) if path.resolve() not in ignored]
    if set(found) <= set(GIVE_WAY) and any(map(has_masks, coco)):
        return COCO
    for name in GIVE_WAY:
        found = [one for one in found if len(found) == 1 or one != name]
    if len(found) > 1:
        raise BenchError(f"{folder}: has labels of {' and '.join(found)}; choose one of them with --format")
    if found or coco:
        return found[0] if found else COCO
    known = ", ".join(formats())
    raise UnknownFormat(
        f"{folder}: no labels of a known format ({known}) below it; docs/how-to/your-data.md shows them"
    )


def convert(
    folder: Path,
    format_: str,
    class_name: str,
    out: Path,
    force: bool,
    progress: Callable[[str], None],
    ignored: Collection[Path] = (),
) -> Converted:
    """Write the file `out`, or OUT-SUBSET.json for each of several subsets; write all of the files, or none.

    class_name names the class where the format has none; ignored are COCO files, by absolute path, that an earlier
    conversion wrote. Raises BenchError for a fault of the labels, for labels without an object, and for a file that is
    there already, unless force.
    """
    folder = Path(os.path.abspath(folder))
    if format_ == COCO:
        return _convert_coco(folder, out, force, ignored)
    converter = _converter(format_)(folder, class_name)
    subsets = {name: items for name, items in converter.subsets().items() if items}
    paths = _paths(folder, subsets, out, force)
    classes, left_out, first, partly = Classes(converter.classes), Counter[str](), dict[str, str](), 0
    doubts = Counter[str]()
    with ExitStack() as stack:
        files = {name: CocoFile(path, folder, classes, stack) for name, path in paths.items()}
        for name, items in subsets.items():
            for photo in _read_present(converter, items, f"{folder}: {name or 'photos'}", progress):
                partly += bool(photo.objects) and any(one.may_be_object for one in photo.left_out)
                for doubt in photo.doubts:
                    doubts[doubt] += 1
                    first.setdefault(doubt, str(photo.path))
                for one in [*photo.left_out, *_add(photo, files[name])]:
                    left_out[one.kind] += 1
                    first.setdefault(one.kind, one.place)
        notes = [*converter.notes, *(f"left out: {n} {kind}, the first: {first[kind]}" for kind, n in left_out.items())]
        notes += [f"{n} photos {doubt} (the first: {first[doubt]})" for doubt, n in doubts.items()]
        notes += (
            [f"{partly} photos have such shapes beside masks; their objects are background there"] if partly else []
        )
        if not any(file.objects for file in files.values()):
            count = sum(map(len, subsets.values()))
            said = f" ({'; '.join(notes)})" if notes else ""
            raise BenchError(
                f"{folder}: no object with a mask in its {count} photos{said}; label some, or choose --format"
            )
        if converter.single_object and all(file.objects.total() == file.images - file.empty for file in files.values()):
            notes.append(converter.single_object)
        written = {name: file for name, file in files.items() if file.images}
        for file in written.values():
            file.write(stack.enter_context(open_whole(file.path)))
    pairs = (item for part in subsets.values() for item in part if isinstance(item, Item))
    labels = {path for pair in pairs for path in pair.labels}
    described = [_describe(file) for file in written.values()]
    return Converted({name: paths[name] for name in written}, [*described, *notes], labels)


def _read_present(
    converter: ConverterBase, items: Sequence[Any], source: str, progress: Callable[[str], None]
) -> Iterator[Photo]:
    """Yield the photos of a subset, and note how many are missing; raise BenchError where all are."""

    def read(item: Any) -> Photo | MissingPhoto:
        try:
            return converter.read(item)
        except MissingPhoto as error:
            return error

    missing: list[str] = []
    for photo in in_threads(read, items, source, progress):
        if isinstance(photo, Photo):
            yield photo
        else:
            missing.append(str(photo))
    converter.note_missing(missing, len(items), source)


def _add(photo: Photo, file: CocoFile) -> list[LeftOut]:
    """Write a photo, and return what is left out: its objects without a pixel, or the photo, if nobody drew its masks.

    A network would learn the objects of such a photo as background.
    """
    if not photo.objects and any(one.may_be_object for one in photo.left_out):
        return [LeftOut("photos that have such shapes alone, and no mask", str(photo.path))]
    return file.add(photo)


def _converter(format_: str) -> type[ConverterBase]:
    converter: type[ConverterBase] = plugins.load("converters", format_).Converter
    return converter


def _convert_coco(folder: Path, out: Path, force: bool, ignored: Collection[Path]) -> Converted:
    earlier = [out, *(_path(out, subset) for subset in ("train", "val", "test", ""))]
    rewritten = rewrite(folder, {*ignored, *(path.resolve() for path in earlier)})
    paths = _paths(folder, rewritten, out, force)
    for name, path in paths.items():
        write_text(path, json.dumps(rewritten[name].content) + "\n")
    lines = [line.replace(NEW_PATH, str(paths[name])) for name in paths for line in rewritten[name].lines]
    return Converted(paths, lines)


def _paths(folder: Path, subsets: Collection[str], out: Path, force: bool) -> dict[str, Path]:
    """Return the file of each subset; raise BenchError where there is no subset, or a file that may not be replaced."""
    if not subsets:
        raise BenchError(
            f"{folder}: no labelled photo below it; docs/how-to/your-data.md shows what a format has where"
        )
    if out.is_dir():
        raise BenchError(f"{out}: is a folder; let --out name a file")
    paths = {name: out if len(subsets) == 1 else _path(out, name) for name in subsets}
    for path in paths.values():
        if path.exists() and not force:
            raise BenchError(f"{path}: is there already; give --force to replace it, or another --out")
    return paths


def _path(out: Path, subset: str) -> Path:
    return out.with_name(f"{out.stem}-{subset or 'others'}{out.suffix}")


def _describe(file: CocoFile) -> str:
    found = [name for name in file.classes.ids if file.objects[name]]
    shown = ", ".join(f"{name} {file.objects[name]}" for name in found[:10])
    more = f", and {len(found) - 10} other classes" if len(found) > 10 else ""
    absent = len(file.classes.ids) - len(found)
    without = f"; {absent} classes without an object" if absent else ""
    empty = f", {file.empty} of them without an object" if file.empty else ""
    return f"{file.path}: {file.images} images{empty}, {file.objects.total()} objects: {shown or 'none'}{more}{without}"
