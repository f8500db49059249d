"""Write and read a bundle: a zip of a run's predictions, its record, its metrics, and a manifest with their sha256.

A bundle comes from somebody else, so nothing of it is executed, unpickled, or written under a name of its own.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from pais_bench.annotations.json_file import read_json_file
from pais_bench.errors import BenchError
from pais_bench.runs.files import RUN, metrics_file, predictions_file
from pais_bench.study.base import StrictConfig, parse
from pais_bench.study.run import ModelCheckpoint
from pais_bench.whole_file import open_whole

MANIFEST, METRICS, PREDICTIONS = "manifest.json", metrics_file(), predictions_file()
MEMBERS = (RUN, METRICS, PREDICTIONS)
LIMITS = {MANIFEST: 1 << 20, RUN: 1 << 24, METRICS: 1 << 24, PREDICTIONS: 1 << 30}
"""Bytes that a member may have; COCO's 5,000 validation images with 100 instances each take a fifth of it."""
RATIO = 200
"""How many times larger than packed a member may be, from SMALL bytes on; results in JSON shrink to a fifth."""
SMALL = 1 << 20
BLOCK = 1 << 20
FIRST_DATE = (1980, 1, 1, 0, 0, 0)


class Manifest(StrictConfig):
    """Hold what a bundle says of itself.

    by: who submits it | checkpoint: which network of the run predicted | validation: digest of the validation records
    that the predictions were evaluated on | members: the sha256 of every other member.
    """

    format: Literal[1] = 1
    by: str = Field(max_length=80)
    checkpoint: ModelCheckpoint
    validation: str
    members: dict[str, str]

    @field_validator("by")
    @classmethod
    def _is_a_line(cls, text: str, info: ValidationInfo) -> str:
        if not text.isprintable():
            raise ValueError("give one line of printable characters")
        return text


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write a bundle whole or not at all; the same bytes for the same content. files are the paths of MEMBERS."""
    with open_whole(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(MANIFEST), manifest.model_dump_json(indent=1) + "\n")
        for name in MEMBERS:
            with files[name].open("rb") as source, archive.open(_entry(name), "w") as target:
                while block := source.read(BLOCK):
                    target.write(block)


def read_bundle(path: Path, folder: Path) -> Manifest:
    """Write the members of a bundle into a folder, and return its manifest.

    Raises BenchError for what is no bundle: no zip, other members than these, a member that is a link, encrypted, too
    large, or without its sha256, and a manifest that is none.
    """
    if not zipfile.is_zipfile(path):
        raise BenchError("not a zip archive, or a part of one; submit the file that `pais-bench submit` wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            _check_entries(archive.infolist())
            sha256 = {name: _extract(archive, entry, folder / name) for name, entry in entries.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OverflowError) as error:
        raise BenchError(f"a damaged archive ({error}); submit it again") from error
    values = read_json_file(folder / MANIFEST)
    if not isinstance(values, dict):
        raise BenchError(f"{MANIFEST}: holds no mapping; submit the run again")
    manifest = parse(Manifest, values, MANIFEST)
    if set(manifest.members) != set(MEMBERS):
        raise BenchError(f"{MANIFEST}: lists {_listed(manifest.members)} instead of {_listed(MEMBERS)}")
    for name, listed in manifest.members.items():
        if sha256[name] != listed:
            raise BenchError(
                f"{name}: has the sha256 {sha256[name][:8]}, and {MANIFEST} lists {listed[:8]}; it was changed since, "
                f"submit the run again"
            )
    return manifest


def _entry(name: str) -> zipfile.ZipInfo:
    """Return the header of a member, without its date and its owner, which are no content."""
    entry = zipfile.ZipInfo(name, FIRST_DATE)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
    return entry


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Raise BenchError unless the members are those of a bundle, each once, a plain file of a plausible size."""
    names = [entry.filename for entry in entries]
    if other := sorted(set(names) - set(LIMITS)):
        raise BenchError(f"has a member {json.dumps(other[0][:80])}; a bundle has {_listed(LIMITS)} alone")
    if missing := [name for name in LIMITS if name not in names]:
        raise BenchError(f"lacks {missing[0]}; a bundle has {_listed(LIMITS)}")
    if len(names) > len(LIMITS):
        raise BenchError(f"has {max(names, key=names.count)} twice; a bundle has each member once")
    for entry in entries:
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BenchError(f"{entry.filename}: is a link or a device; a bundle has plain files")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BenchError(f"{entry.filename}: is encrypted, or packed in another way than deflate; pack it plainly")
        if entry.file_size > LIMITS[entry.filename]:
            raise BenchError(
                f"{entry.filename}: has {entry.file_size} bytes, and {LIMITS[entry.filename]} are allowed; submit at "
                f"most 100 instances per image"
            )
        if entry.file_size > max(SMALL, RATIO * entry.compress_size):
            raise BenchError(
                f"{entry.filename}: unpacks to {entry.file_size} bytes from {entry.compress_size}, which no results do"
            )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> str:
    """Write a member, of the declared size at most, and return its sha256; zipfile checks its CRC."""
    digest = hashlib.sha256()
    with archive.open(entry) as source, path.open("wb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _listed(names: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(names)
