"""Check the image files that records name: found, readable, of the recorded size, turned as the annotations are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.annotations.repair import DroppedRecord
from pais_bench.annotations.store import ProgressCallback, Subset
from pais_bench.annotations.validate import file_name
from pais_bench.errors import BenchError
from pais_bench.images.check import check_file, copies, in_threads
from pais_bench.images.files import ImageFolder
from pais_bench.images.pixels import Header

EXAMPLES = 3  # names that a message lists
DARK = 64  # a subset of 16-bit images none of which reaches this grey of 255 has fewer bits in use
FAULT = "image file"


class _Checked(NamedTuple):
    """Hold a record of an image whose file was read."""

    record: Mapping[str, Any]
    path: Path
    header: Header
    brightest: int | None

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the recorded (H, W); None where it is no size, which the store reports."""
        sides = self.record.get("height"), self.record.get("width")
        return sides if all(type(side) is int and side > 0 for side in sides) else None  # type: ignore[return-value]


def check_images(
    subset: Subset, repair: bool, decode: bool, max_megapixels: float, progress: ProgressCallback
) -> Subset:
    """Return a subset whose file names are those of the files, without the images that a repair drops.

    Raises BenchError for files that are missing, unreadable, larger than allowed, or of another size than recorded.
    Invalid records pass, because the store reports them.
    """
    images, missing = _find(subset, progress)
    rows = [row for row, image in enumerate(images) if file_name(image) and row not in missing]
    paths = [subset.folder / images[row]["file_name"] for row in rows]
    results = in_threads(lambda path: check_file(path, decode), paths, str(subset.folder), progress)
    checked: dict[int, _Checked] = {}
    faults = {row: f"{subset.folder}/{name}: no such image; put it there" for row, name in missing.items()}
    lasting: list[str] = []
    for row, path, result in zip(rows, paths, results, strict=True):
        if result.damaged:
            faults[row] = result.fault
        elif fault := result.fault or _too_large(path, result.header, max_megapixels):
            lasting.append(fault)
        elif result.header:
            checked[row] = _Checked(images[row], path, result.header, result.brightest)
    if faults and not repair:
        raise BenchError(_faults_message(subset, missing, [faults[row] for row in sorted(faults)]))
    if lasting:  # of sound files, which a repair keeps
        raise BenchError(_faults_message(subset, {}, lasting))
    _check_sizes(subset, checked.values())
    _check_orientations(subset, checked.values(), progress)
    _check_depths(subset, checked.values(), progress)
    dropped = [DroppedRecord("images", row, FAULT, faults[row], subset.images[row]) for row in sorted(faults)]
    return replace(subset, images=[image for row, image in enumerate(images) if row not in faults], dropped=dropped)


def report_copies(subsets: Mapping[str, Subset], progress: ProgressCallback) -> None:
    """Report images that two records name, and files with the same content in one subset or in two."""
    paths = {
        name: [subset.folder / image["file_name"] for image in subset.images if file_name(image)]
        for name, subset in subsets.items()
    }
    within: dict[str, list[list[Path]]] = {name: [] for name in subsets}
    twice: dict[str, list[Path]] = {name: [] for name in subsets}
    between: defaultdict[tuple[str, ...], list[list[Path]]] = defaultdict(list)
    for group in copies(paths, progress):
        records: defaultdict[str, Counter[Path]] = defaultdict(Counter)
        for name, path in group:  # subset after subset
            records[name][path] += 1
        if len(records) > 1:
            between[tuple(records)].append([next(iter(counts)) for counts in records.values()])
        for name, counts in records.items():
            twice[name] += [path for path, count in counts.items() if count > 1]
            if len(counts) > 1:
                within[name].append(list(counts))
    for names, groups in between.items():
        progress(
            f"warning: images that are in {' and '.join(names)}, byte for byte: {len(groups)}, the first: "
            f"{_equations(groups)}; remove each from all but one"
        )
    for name, files in twice.items():
        if files:
            progress(
                f"warning: files that several image records of {name} name: {len(files)}, the first: "
                f"{', '.join(_escape(str(path)) for path in files[:EXAMPLES])}; give the annotations of all records of "
                f"a file one image_id, as the objects of one are background in the others"
            )
    for name, groups in within.items():
        if groups:
            progress(
                f"warning: images that are more than once in {name}, byte for byte: {len(groups)}, the first: "
                f"{_equations(groups)}; leave one record of each"
            )


def _equations(groups: Iterable[list[Path]]) -> str:
    return ", ".join(" = ".join(map(_escape, map(str, group[:EXAMPLES]))) for group in list(groups)[:EXAMPLES])


def _escape(name: str) -> str:
    """Return a name, escaped if it is not printable."""
    return name if name.isprintable() else ascii(name)


def _find(subset: Subset, progress: ProgressCallback) -> tuple[list[Any], dict[int, str]]:
    """Return the records with the names of their files, and of every row without a file its message."""
    folder = ImageFolder(subset.folder)
    files = folder.find([file_name(image) for image in subset.images])
    images, missing, other = list(subset.images), {}, []
    for row, file in enumerate(files):
        name = file_name(images[row])
        if name and file is None:
            hint = folder.hint(name)
            missing[row] = f"{_escape(name)}{f' ({_escape(hint)})' if hint else ''}"
        elif name and file != name:
            images[row] = {**images[row], "file_name": file}
            other.append(f"{_escape(name)} is {_escape(str(file))}")
    if other:
        progress(
            f"{subset.source}: {len(other)} of {len(images)} file names are written in another way than the files', "
            f"the first: {'; '.join(other[:EXAMPLES])}"
        )
    return images, missing


def _faults_message(subset: Subset, missing: Mapping[int, str], faults: list[str]) -> str:
    if missing:
        leave_out = ", or leave them out with --repair" if len(missing) < len(subset.images) else ""
        return (
            f"{subset.folder}: {len(missing)} of the {len(subset.images)} images of {subset.source} are missing, "
            f"the first: {', '.join(list(missing.values())[:EXAMPLES])}; put them there{leave_out}"
        )
    others = "".join(f"; {fault}" for fault in faults[1:EXAMPLES])
    count = f" ({len(faults)} of {len(subset.images)} images have such a fault)" if len(faults) > 1 else ""
    return f"{faults[0]}{others}{count}"


def _too_large(path: Path, header: Header | None, max_megapixels: float) -> str:
    pixels = header.stored[0] * header.stored[1] if header else 0
    if pixels <= max_megapixels * 1e6:
        return ""
    return (
        f"{path}: {pixels / 1e6:.0f} megapixels, more than {max_megapixels:g}; scale or cut the image, or raise "
        f"dataset.options.max_megapixels"
    )


def _check_sizes(subset: Subset, images: Iterable[_Checked]) -> None:
    wrong = [image for image in images if image.header.is_turned(image.size) is None]
    if wrong:
        image_id = _escape(str(wrong[0].record.get("id")))
        height, width = wrong[0].size or (0, 0)
        count = f" ({len(wrong)} images differ)" if len(wrong) > 1 else ""
        raise BenchError(
            f"{wrong[0].path}: {wrong[0].header.describe()}, but image {image_id} is {width} x {height} in "
            f"{subset.source}; replace the file, or correct the record{count}"
        )


def _check_orientations(subset: Subset, images: Iterable[_Checked], progress: ProgressCallback) -> None:
    """Report images whose size does not show whether their annotations are turned; refuse them where others are not."""
    exif = [image for image in images if image.header.orientation > 1]
    ambiguous = [image for image in exif if image.header.ambiguous]
    unturned = [image for image in exif if image.header.is_turned(image.size) is False]
    if ambiguous and unturned:
        raise BenchError(
            f"{ambiguous[0].path}: EXIF orientation {ambiguous[0].header.orientation}, and its size does not show "
            f"whether its annotations are turned, while those of {unturned[0].path} are not ({len(ambiguous)} such "
            f"images); remove the orientation from the files, or turn their pixels"
        )
    if exif:
        note = f"{subset.source}: {len(exif) - len(unturned)} images are turned as their EXIF orientation says"
        if unturned:
            note += f", {len(unturned)} are not, because their records have the size before it"
        if ambiguous:
            note += f"; of {len(ambiguous)} the size does not show that the annotations are turned too, the first: "
            note += _escape(ambiguous[0].path.name)
        progress(note)


def _check_depths(subset: Subset, images: Iterable[_Checked], progress: ProgressCallback) -> None:
    """Refuse 16-bit images that hold 8 bits, and report dark ones and files with several pages."""
    images = list(images)
    deep = [image for image in images if image.brightest is not None]
    brightest = max((image.brightest or 0 for image in deep), default=DARK)
    if brightest <= 1:
        raise BenchError(
            f"{deep[0].path}: one of {len(deep)} images of 16 bits, none of which has a value above 1/255 of white; "
            f"save them as 8 bits if that is what they hold, or scale them to 0..65535"
        )
    if brightest < DARK:
        progress(
            f"warning: {subset.source}: {len(deep)} images of 16 bits reach {brightest / 255:.0%} of white at most; "
            f"scale them to 0..65535 if their camera has fewer bits"
        )
    if paged := [image for image in images if image.header.paged]:
        progress(
            f"warning: {subset.source}: {len(paged)} images have several pages or frames, of which the first is used: "
            f"{', '.join(_escape(image.path.name) for image in paged[:EXAMPLES])}"
        )
