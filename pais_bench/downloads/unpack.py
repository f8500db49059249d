"""Unpack a zip archive, member by member: what is there already stays, and a call that was ended is continued."""

from __future__ import annotations

import shutil
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pais_bench.downloads.transfer import REPORT_S, ProgressCallback, require_space
from pais_bench.errors import BenchError
from pais_bench.whole_file import open_whole


def unpack(archive: Path, folder: Path, progress: ProgressCallback) -> None:
    """Write every member below a folder, whole or not at all, and check its CRC.

    A file of the same size is kept. Raises BenchError for an archive that is damaged or would write elsewhere, and for
    a file of another size, which is not overwritten.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            missing = [member for member in members if not _is_there(archive, member, folder)]
            require_space(folder, sum(member.file_size for member in missing), f"unpacking {archive.name}")
            reported = time.monotonic()
            for number, member in enumerate(missing):
                _write(opened, member, folder / member.filename)
                if (now := time.monotonic()) - reported >= REPORT_S:
                    reported = now
                    progress(f"{archive.name}: {number + 1} of {len(missing)} files unpacked")
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise BenchError(f"{archive}: a damaged archive ({error}); remove it, and fetch it again") from error


def _is_there(archive: Path, member: zipfile.ZipInfo, folder: Path) -> bool:
    parts = PurePosixPath(member.filename)
    if parts.is_absolute() or ".." in parts.parts:
        raise BenchError(f"{archive}: would write {member.filename} outside of {folder}; fetch it again")
    path = folder / member.filename
    if not path.exists():
        return False
    if path.stat().st_size != member.file_size:
        raise BenchError(
            f"{path}: has {path.stat().st_size} bytes, in {archive.name} it has {member.file_size}; move it away, or "
            f"use --to"
        )
    return True


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with opened.open(member) as source, open_whole(path, "wb") as target:
        shutil.copyfileobj(source, target)
