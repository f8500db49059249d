"""Check the file system of the results: whether it keeps the promises that runs rely on, and has room."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pais_bench.errors import describe_fault
from pais_bench.machine.finding import Finding

SHARED = {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs"}
SHARED |= {"pvfs2", "smb3", "virtiofs", "wekafs"}
"""File systems that other machines see too; those of FUSE, as fuse.sshfs, count as well."""
IN_MEMORY = {"ramfs", "tmpfs"}
SKEW = 5.0
"""Seconds between the clock of a file system and that of the machine from which on they differ."""
FILES = 10_000
"""Free inodes below which it is told: a torch environment has tens of thousands of files, a run about 20."""
FREE = 5e9
"""Free bytes below which it is told where the need is not known."""


def check_filesystem(results: Path, needed: float | None, on_cluster: bool) -> Iterator[Finding]:
    """Check where a results folder is, or will be; needed is what a study still writes there, in bytes, if known."""
    folder = next(path for path in (results.absolute(), *results.absolute().parents) if path.is_dir())
    mountinfo = Path("/proc/self/mountinfo")
    if mountinfo.exists():
        yield _check_kind(results, mounted(folder.resolve(), mountinfo.read_text(errors="replace")), on_cluster)
    try:
        with TemporaryDirectory(prefix=".doctor-", dir=folder) as probe:
            yield from _check_promises(results, Path(probe))
    except OSError as error:
        fault = describe_fault(error) or str(error)
        yield Finding("fail", f"{results}: cannot be written: {fault}")
    yield from _check_space(results, os.statvfs(folder), needed)


def mounted(path: Path, mountinfo: str) -> str:
    """Return the type of the file system of a resolved path, as proc(5) lists mounts."""
    kinds: dict[Path, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) > 4 and after:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
            kinds[Path(point)] = after.split()[0]  # a later mount hides an earlier one
    return next((kinds[parent] for parent in (path, *path.parents) if parent in kinds), "unknown")


def _check_kind(results: Path, kind: str, on_cluster: bool) -> Finding:
    if kind in IN_MEMORY:
        return Finding("warn", f"{results}: lies in memory ({kind}) and is lost with the machine; choose --results")
    shared = kind in SHARED or kind.startswith("fuse.")
    if on_cluster and not shared:
        return Finding(
            "warn",
            f"{results}: on {kind}, of this node alone; jobs on other nodes do not see it: choose a shared --results",
        )
    return Finding("ok", f"{results}: on {kind}, {'shared by machines' if shared else 'of this machine alone'}")


def _check_promises(results: Path, probe: Path) -> Iterator[Finding]:
    """Check that a rename replaces a file, that one process alone creates or locks one, and the clock."""
    new, old = probe / "new", probe / "old"
    old.write_text("old")
    begin = time.time()
    new.write_text("new")
    skew = new.stat().st_mtime - begin
    os.replace(new, old)
    if old.read_text() != "new" or new.exists():
        yield Finding("fail", f"{results}: a rename does not replace a file; choose a --results with POSIX semantics")
    with suppress(FileExistsError):
        os.close(os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        yield Finding("fail", f"{results}: two processes can create one file; choose a --results with POSIX semantics")
    if fault := _lock_fault(old):
        yield Finding(
            "warn",
            f"{results}: locks do not hold ({fault}); start one command at a time here, or ask for a mount with locks "
            f"(of Lustre: the option flock)",
        )
    if abs(skew) > SKEW:
        yield Finding(
            "warn",
            f"{results}: its clock differs from this machine's by {skew:+.0f} s, and files look older or newer than "
            f"they are; ask for NTP on both",
        )


def _lock_fault(path: Path) -> str:
    """Return why a lock of a file does not keep out another opening of it; nothing where it does."""
    with open(path) as first, open(path) as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return (error.strerror or str(error)).lower()
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
    return "two processes have one at once"


def _check_space(results: Path, disk: os.statvfs_result, needed: float | None) -> Iterator[Finding]:
    free = disk.f_bavail * disk.f_frsize
    text = f"{results}: {free / 1e9:.1f} GB are free"
    if needed is not None:
        short = needed > free
        text += f", and the runs left take {needed / 1e9:.1f} GB"
        yield Finding("fail" if short else "ok", f"{text}; free some, or choose another --results" if short else text)
    elif free < FREE:
        yield Finding("warn", f"{text}; free some, or choose another --results")
    else:
        yield Finding("ok", text)
    # File systems without a fixed number of inodes say 0, as btrfs does.
    if disk.f_files and disk.f_favail < FILES:
        yield Finding("warn", f"{results}: {disk.f_favail} more files fit; remove some, or ask for more inodes")
