"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, overload


@contextmanager
def partial_path(path: Path) -> Iterator[Path]:
    """Yield the path to write a file to: it gets its name when all of it is written, and else is removed.

    Its folder is made. A link keeps its place, and the file that it names is written. A device or a pipe is written as
    it is.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@overload
def open_whole(path: Path, mode: Literal["w"] = "w") -> AbstractContextManager[TextIO]: ...
@overload
def open_whole(path: Path, mode: Literal["wb"]) -> AbstractContextManager[BinaryIO]: ...
@contextmanager
def open_whole(path: Path, mode: str = "w") -> Iterator[Any]:
    """Open a file for writing, as UTF-8 or bytes, that is written as one at partial_path is."""
    with partial_path(path) as partial, partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


def write_text(path: Path, content: str) -> Path:
    """Write a file whole or not at all, and make its folder; return its path."""
    with open_whole(path) as file:
        file.write(content)
    return path
