"""Rewrite COCO files of other tools where their dialect says something else than COCO: file names and crowds.

Label Studio puts `/data/upload/N/` and eight hexadecimal digits in front of file names. CVAT gives every mask, in
contrast to a polygon, iscrowd 1, which in COCO is a region of many objects, and lists the photos of a task that nobody
has labelled yet. COCO Annotator marks boxes, which have no mask, by isbbox. LVIS names a photo by its address alone,
coco_url. LIVECell has its annotations by id. Everything else is kept as it is: `pais-bench prepare` reads the other
dialects itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.validate import LISTS
from pais_bench.converters.coco_join import join_files
from pais_bench.converters.photo_folders import PhotoFolders
from pais_bench.errors import BenchError
from pais_bench.images.files import ImageFolder, files_below, packed_files, role_of
from pais_bench.images.pixels import Size

OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
"""What COCO's own files begin with that hold no instances."""
PREFIX = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts in front of an uploaded file's name."""

WRITTEN_BY = "written_by"
"""The first key of COCO files that pais_bench writes from other labels, so that these are read where both are there."""
IMPORT_DATA, INIT = "import-data", "init"


NEW_PATH = "{path}"
"""What stands for the path of a file that is not written yet."""


class Rewritten(NamedTuple):
    """Hold the content of a COCO file, and what was found and changed, a line each; {path} is the file's new path."""

    content: dict[str, Any]
    lines: Sequence[str]


def is_coco(path: Path) -> bool:
    """Return whether a JSON file names the three lists of COCO; not one that cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in content for key in LISTS)


def coco_files(folder: Path) -> list[Path]:
    """Return the COCO files of instances below a folder."""
    return [path for path in files_below(folder, ".json") if not path.name.startswith(OTHER_TASKS) and is_coco(path)]


def has_masks(path: Path) -> bool:
    """Return whether a COCO file has a mask and was not converted from other labels by import-data or init."""
    content = path.read_bytes()
    return not written_by(path) and re.search(rb'"segmentation"\s*:\s*[\[{]\s*[^\]}\s]', content) is not None


def mark(content: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the content of a COCO file with the name of the command that writes it, which written_by reads."""
    return {WRITTEN_BY: command, **{key: value for key, value in content.items() if key != WRITTEN_BY}}


def written_by(path: Path) -> str:
    """Return the command that wrote a COCO file, as the start of the file says; nothing for a file of another tool."""
    with path.open("rb") as file:
        start = file.read(100)
    found = re.match(rb'{"%b": "([a-z-]+)"' % WRITTEN_BY.encode(), start)
    return found[1].decode() if found else ""


def rewrite(folder: Path, ignored: Collection[Path]) -> dict[str, Rewritten]:
    """Return the rewritten COCO file of each subset, several of one joined; raise BenchError for missing photos.

    ignored files, by absolute path, do not count.
    """
    files: dict[str, list[Path]] = {}
    for path in coco_files(folder):
        if path.resolve() not in ignored:
            files.setdefault(role_of(path.relative_to(folder)), []).append(path)
    if not files and (others := [path for path in files_below(folder, ".json") if path.name.startswith(OTHER_TASKS)]):
        raise BenchError(
            f"{others[0]}: of another task of COCO, by its name; rename it if its annotations are instances"
        )
    listing = ImageFolder(folder)
    return {subset: _join([_rewrite(path, listing) for path in paths], paths) for subset, paths in files.items()}


def _join(parts: Sequence[Rewritten], paths: Sequence[Path]) -> Rewritten:
    """Return several files as one, which says what was changed in each."""
    if len(parts) == 1:
        return parts[0]
    content, lines = join_files({path: part.content for path, part in zip(paths, parts, strict=True)})
    changed = [line for part in parts for line in part.lines if not line.startswith(NEW_PATH)]
    return Rewritten(content, [_describe(content), *lines, *changed])


def _describe(content: Mapping[str, Any]) -> str:
    return f"{NEW_PATH}: {len(content['images'])} images, {len(content['annotations'])} annotations"


def _rewrite(path: Path, listing: ImageFolder) -> Rewritten:
    content = read_json_file(path)
    by_id = _list_records(content) if isinstance(content, dict) else []
    if not isinstance(content, dict) or not all(_are_records(content.get(key)) for key in LISTS):
        raise BenchError(
            f"{path}: images, annotations and categories are not lists of records; export it as COCO again"
        )
    unlabelled = _unlabelled_images(content["images"], content["annotations"])
    masks = [annotation for annotation in content["annotations"] if not _is_box(annotation)]
    boxes, content["annotations"] = len(content["annotations"]) - len(masks), masks
    if boxes and not masks:
        raise BenchError(f"{path}: all its annotations are boxes (isbbox), which have no mask; draw outlines")
    content["images"] = [image for image in content["images"] if str(image.get("id")) not in unlabelled]
    named = _name_by_address(content["images"])
    renamed, missing = _rename(path, content["images"], listing)
    single = _single_objects(content["annotations"])
    for annotation in single:
        annotation["iscrowd"] = 0
    lines = [_describe(content)]
    lines += [f"{path}: {' and '.join(by_id)}: records by id became a list"] if by_id else []
    lines += [f"{path}: {named} photos without file_name have that of their coco_url"] if named else []
    if any("not_exhaustive_category_ids" in image for image in content["images"]):
        lines.append(
            f"{path}: LVIS names objects of some classes of a photo alone; COCO's metrics, which are computed here, "
            f"count a detection of any other object as false"
        )
    lines += [f"{path}: left out: {len(unlabelled)} photos without a mask"] if unlabelled else []
    if boxes:
        lines.append(f"{path}: left out: {boxes} boxes (isbbox), which have no mask and, beside masks, are background")
    if missing:
        lines.append(
            f"{path}: {len(missing)} photos are missing, the first: {missing[0]}; put them there, or leave them out by "
            f"`pais-bench prepare --repair`"
        )
    lines += [f"{path}: {renamed} file names were replaced by those of the files"] if renamed else []
    lines += [f"{path}: {len(single)} masks of CVAT with iscrowd 1 are single objects, and have 0"] if single else []
    return Rewritten(content, lines)


def _are_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _list_records(content: dict[str, Any]) -> list[str]:
    """Make lists of the records that are by id, and return their keys."""
    keys = [key for key in LISTS if isinstance(content.get(key), dict)]
    for key in keys:
        content[key] = list(content[key].values())
    return keys


def _name_by_address(images: Sequence[dict[str, Any]]) -> int:
    """Give images without file_name the end of their coco_url, folder and name; return their number."""
    unnamed = [image for image in images if "file_name" not in image and isinstance(image.get("coco_url"), str)]
    for image in unnamed:
        image["file_name"] = "/".join(PurePosixPath(image["coco_url"]).parts[-2:])
    return len(unnamed)


def sizes_by_name(images: Sequence[Any]) -> dict[str, Size | None]:
    """Return the (H, W) of images by file name, None where a record states none; leave out records without a name."""
    records = [image for image in images if isinstance(image, dict) and isinstance(image.get("file_name"), str)]
    return {image["file_name"]: stated_size(image.get("height"), image.get("width")) for image in records}


def _rename(path: Path, images: Sequence[dict[str, Any]], listing: ImageFolder) -> tuple[int, list[str]]:
    """Give every image the path of its file below the folder; return the number of changes, and missing photos.

    These keep their names, so that prepare reports them, and leaves them out on request. BenchError where all are.
    """
    names = [str(image.get("file_name")) for image in images]
    found: list[str | None] = [_beside(path, name, listing) for name in names]
    found = [file or other for file, other in zip(found, listing.find(names), strict=True)]
    if None in found and (folder := PhotoFolders(listing.folder).find(path, sizes_by_name(images))):
        own = [
            (folder / file).relative_to(listing.folder).as_posix() if file else None
            for file in ImageFolder(folder).find(names)
        ]
        found = [file or other for file, other in zip(found, own, strict=True)]
    if any(file is None for file in found):
        bare = listing.find([_without_prefix(name) for name in names])
        found = [file or other for file, other in zip(found, bare, strict=True)]
    if names and not any(found):
        several = f" ({hint})" if (hint := listing.hint(names[0])) else ""
        raise BenchError(
            f"{path}: none of its {len(names)} photos is below {listing.folder}, the first: {names[0]}{several}; "
            f"{packed_files(listing.folder) or 'put them there'}"
        )
    for image, name, file in zip(images, names, found, strict=True):
        image["file_name"] = file or name
    pairs = list(zip(names, found, strict=True))
    return sum(file not in (None, name) for name, file in pairs), [name for name, file in pairs if file is None]


def _beside(path: Path, name: str, listing: ImageFolder) -> str | None:
    """Return the file of this name beside the annotation file, where Roboflow puts the photos of a subset."""
    file = (path.parent.relative_to(listing.folder) / name).as_posix()
    return file if file in listing.files else None


def _without_prefix(name: str) -> str:
    return PREFIX.sub("", PurePosixPath(name.replace("\\", "/")).name, count=1)


def is_to_be_rewritten(images: Sequence[Any], annotations: Sequence[dict[str, Any]]) -> bool:
    """Return whether some records mean something else than in COCO, so that `rewrite` has to change or drop them."""
    return bool(
        any(map(_is_box, annotations)) or _single_objects(annotations) or _unlabelled_images(images, annotations)
    )


def _single_objects(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the annotations of a file of CVAT with iscrowd 1, if these are all its masks: they are single objects."""
    crowds = [annotation for annotation in annotations if annotation.get("iscrowd") == 1]
    masks = [annotation for annotation in annotations if isinstance(annotation.get("segmentation"), Mapping)]
    return crowds if _is_of_cvat(annotations) and crowds == masks else []


def _unlabelled_images(images: Sequence[Any], annotations: Sequence[dict[str, Any]]) -> set[str]:
    """Return the ids of images whose masks nobody drew, so that their objects would count as background.

    These are images with boxes alone and, in a file of CVAT, images without any shape.
    """
    ids = {str(image.get("id")) for image in images if isinstance(image, dict)}
    masked = {str(annotation.get("image_id")) for annotation in annotations if not _is_box(annotation)}
    boxed = {str(annotation.get("image_id")) for annotation in annotations if _is_box(annotation)}
    return (ids if masked and _is_of_cvat(annotations) else ids & boxed) - masked


def _is_box(annotation: Mapping[str, Any]) -> bool:
    return annotation.get("isbbox") is True


def _is_of_cvat(annotations: Sequence[dict[str, Any]]) -> bool:
    return all(
        isinstance(record.get("attributes"), Mapping) and "occluded" in record["attributes"] for record in annotations
    )
