"""Read table.yaml: what can be downloaded, its size, digest and licence, and where it belongs."""

from __future__ import annotations

from pathlib import Path

from pais_bench.study.base import StrictConfig, parse
from pais_bench.study.yaml_file import read_yaml

TABLE = Path(__file__).parent / "table.yaml"


class Download(StrictConfig):
    """Hold one file: its name below the folder of its group, its address, size in bytes, and sha256.

    url, size and sha256 are None for a file that needs a login. present maps patterns below the folder to the numbers
    of files that an archive unpacks to; without it the file itself is what a study reads.
    """

    name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    present: dict[str, int] = {}

    def is_present(self, folder: Path) -> bool:
        """Return whether the folder has all files that a study reads."""
        if not self.present:
            return (folder / self.name).is_file()
        return all(sum(1 for _ in folder.glob(pattern)) >= number for pattern, number in self.present.items())


class Group(StrictConfig):
    """Hold what one call downloads, the folder where studies look for it, its licence, and the page of its terms."""

    title: str
    licence: str
    terms: str
    folder: Path
    files: tuple[Download, ...]


def read_table() -> dict[str, Group]:
    """Return the groups by name."""
    return {name: parse(Group, values, str(TABLE)) for name, values in read_yaml(TABLE).items()}


def as_size(number: int) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number / 1000:.1f} kB"
