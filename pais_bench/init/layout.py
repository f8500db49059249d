"""Find the COCO annotation files of a folder, the images that they name, and which of them train and which evaluate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.validate import LISTS
from pais_bench.converters.coco_dialects import OTHER_TASKS, is_coco, is_to_be_rewritten, sizes_by_name
from pais_bench.converters.photo_folders import PhotoFolders
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, packed_files, require_data_folder, role_of
from pais_bench.images.pixels import Size

DEPTH = 3
"""Levels of folders that are searched, the given one included."""
LARGEST = 20
"""Most JSON files without the keys of COCO that are read, as a broken COCO file may have lost some of its keys.

Those that are named like subsets are read first. Other tools write a JSON file for each photo.
"""
UNLABELLED = "annotations/image_info_unlabeled2017.json", "unlabeled2017"
OTHER_FORMATS = {".xml": "boxes of Pascal VOC, or a video of CVAT", ".csv": "a table"}


class NoCocoFile(BenchError):
    """Report a folder without an annotation file in COCO format, or with one that has to be converted first."""


class SeveralCocoFiles(NoCocoFile):
    """Report several COCO files of one role, which have to be joined first."""


class Part(NamedTuple):
    """Hold an annotation file and the folder of its images."""

    annotations: Path
    images: Path


class Layout(NamedTuple):
    """Hold the parts of a folder.

    val None: there is one annotation file, to be divided | unused: paths of other COCO files, and what is wrong with
    files that are not read.
    """

    train: Part
    val: Part | None
    unlabelled: Part | None
    unused: tuple[str, ...]


def find_layout(folder: Path, ignored: Collection[Path] = ()) -> Layout:
    """Return the layout of a folder.

    The role of a file is the word train, val, valid, validation or test in its name or, failing that, in the names of
    its folders. A test set with annotations stands for a validation set that is absent. ignored files, by absolute
    path, do not count. Raises SeveralCocoFiles where several files train, or several evaluate, and NoCocoFile where
    there is no COCO file, or one whose records mean something else than in COCO.
    """
    require_data_folder(folder, "images and annotations")
    files, empty, faults = _read_candidates(folder, ignored)
    roles: dict[str, list[Path]] = {}
    for path in files:
        roles.setdefault(role_of(path.relative_to(folder)), []).append(path)
    for path, error in faults.items():
        if _is_needed(role_of(path.relative_to(folder)), roles):
            raise BenchError(f"{error}, or move it out of {folder}") from error
    if len(roles) > 1 and empty.issuperset(roles.get("test", ())):
        roles.pop("test", None)
    evaluation = "val" if "val" in roles else "test"
    if len(files) == 1:
        train, val = next(iter(files)), None
    else:
        train = _only(folder, roles, "train" if "train" in roles else "")
        val = _only(folder, roles, evaluation) if evaluation in roles else None
    chosen = {train, val}
    listing = PhotoFolders(folder)
    unlabelled = Part(folder / UNLABELLED[0], folder / UNLABELLED[1])
    return Layout(
        Part(train, _images_of(listing, train, files[train])),
        Part(val, _images_of(listing, val, files[val])) if val else None,
        unlabelled if unlabelled.annotations.is_file() and unlabelled.images.is_dir() else None,
        (*(str(path) for path in files if path not in chosen), *map(str, faults.values())),
    )


def _is_needed(role: str, roles: Collection[str]) -> bool:
    """Return whether a file of a role would train or evaluate beside those of other roles."""
    return role not in ("", *roles) and (role != "test" or "val" not in roles)


def _read_candidates(
    folder: Path, ignored: Collection[Path]
) -> tuple[dict[Path, dict[str, Size | None]], set[Path], dict[Path, BenchError]]:
    """Return the COCO instances files below a folder, with the sizes of images by name, and those without objects.

    The last are the faults of files that cannot be read, or lack one of the lists.
    """
    paths = _below(folder, ".json")
    candidates = [path for path in paths if not path.name.startswith(OTHER_TASKS) and path.resolve() not in ignored]
    coco = set(filter(is_coco, candidates))
    others = [path for path in candidates if path not in coco]
    others.sort(key=lambda path: (not role_of(Path(path.name)), -path.stat().st_size))
    found: dict[Path, dict[str, Size | None]] = {}
    empty: set[Path] = set()
    faults: dict[Path, BenchError] = {}
    incomplete: dict[Path, BenchError] = {}
    for path in sorted([*coco, *others[:LARGEST]]):
        try:
            content = read_json_file(path)
        except BenchError as error:
            faults[path] = error
            continue
        lists = [key for key in LISTS if isinstance(content, dict) and isinstance(content.get(key), list)]
        if len(lists) == len(LISTS) - 1:
            (lacking,) = set(LISTS).difference(lists)
            incomplete[path] = BenchError(f"{path}: has no list '{lacking}'; export it as COCO JSON again")
        if lists == [*LISTS]:
            if not content["annotations"]:
                empty.add(path)
            found[path] = sizes_by_name(content["images"])
            records = [record for record in content["annotations"] if isinstance(record, dict)]
            if is_to_be_rewritten(content["images"], records):
                raise NoCocoFile(
                    f"{path}: masks of CVAT with iscrowd 1, its photos without a shape, or boxes (isbbox); `pais-bench "
                    f"import-data` makes the first objects, and leaves out the others"
                )
    if found:
        return found, empty, faults | incomplete
    if faults:
        raise next(iter(faults.values()))
    formats = sorted({OTHER_FORMATS[path.suffix.lower()] for path in _below(folder, *OTHER_FORMATS)})
    seen = f" ({len(paths)} JSON files are not of that format, or of another task)" if paths else ""
    seen += f" (some files look like {', '.join(formats)})" if formats else ""
    remedy = f"{unpack}, or " if (unpack := packed_files(folder)) else ""
    remedy += "export the annotations as COCO JSON, or in another format that `pais-bench import-data` reads"
    raise NoCocoFile(f"{folder}: no annotation file in COCO format below it{seen}; {remedy}")


def _only(folder: Path, roles: dict[str, list[Path]], role: str) -> Path:
    """Return the one file of a role; raise BenchError where there is none, and SeveralCocoFiles for more."""
    paths = roles.get(role, [])
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise SeveralCocoFiles(f"{folder}: {', '.join(str(path.relative_to(folder)) for path in paths)}: of one role")
    listed = ", ".join(str(path.relative_to(folder)) for files in roles.values() for path in files)
    raise BenchError(
        f"{folder}: none of its COCO files ({listed}) can be for '{role or 'train'}'; leave one file whose "
        f"name or folder has the word train and one with val, or one file in all"
    )


def _below(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files of these suffixes up to DEPTH."""
    return [path for path in files_below(folder, *suffixes) if len(path.relative_to(folder).parts) <= DEPTH]


def _images_of(listing: PhotoFolders, annotations: Path, sizes: Mapping[str, Size | None]) -> Path:
    """Return the folder of the images of an annotation file; raise NoCocoFile where there is none."""
    folder = listing.find(annotations, sizes)
    if folder is None:
        example = f", such as '{next(iter(sizes))}'," if sizes else ""
        raise NoCocoFile(
            f"{annotations}: none of its {len(sizes)} images{example} is below {listing.root}; put them there"
        )
    return folder
