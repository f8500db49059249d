"""Find the files that the records of images name, in a folder whose layout and spelling may differ from theirs."""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from PIL import Image
from PIL.ImageFile import StubImageFile

from pais_bench.errors import BenchError

FORWARD = "/"
RESULTS_MARK = ".pais-bench-results"
"""The file that marks a results folder, as it may lie among the photos, or be their folder."""
RESULTS_FOLDERS = ("datasets", "external", "logs", "reports", "runs", "splits")
"""Sub-folders of a results folder, whose pictures are no photos."""
UNPACKED_BY_MACOS = "__MACOSX"
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
VIDEO = "MPEG"
"""A format of which Pillow reads the size alone."""
ROLE = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


class ImageFolder:
    """Hold the files below a folder, linked sub-folders included, by their path relative to it.

    The folder is listed once, because looking for every file is slow on a network drive.
    """

    def __init__(self, folder: Path) -> None:
        """List the folder; a loop of links is followed once."""
        self.folder, self.files = folder, frozenset(_walk(folder))

    def find(self, names: Sequence[str]) -> list[str | None]:
        """Return the file of each name, None where there is none; a path is relative if the file is below the folder.

        A name that is no path to a file gets the one file that it may mean (`guesses`), unless another name is the path
        to that file, or may mean it too. No name may mean a hidden file.
        """
        found = [self._reached(name) for name in names]
        guesses = {name: self.guesses(name) for name, file in zip(names, found, strict=True) if file is None}
        taken = {file for file in found if file is not None}
        claims = Counter(files[0] for files in guesses.values() if len(files) == 1)
        certain = {
            name: files[0]
            for name, files in guesses.items()
            if len(files) == 1 and files[0] not in taken and claims[files[0]] == 1
        }
        return [certain.get(name) if file is None else file for name, file in zip(names, found, strict=True)]

    def hint(self, name: str) -> str:
        """Return a hint about a name without a file, for the message about it; nothing if there is none."""
        if len(guesses := self.guesses(name)) > 1:
            return f"it may be {' or '.join(guesses[:3])}"
        if guesses:
            return f"{guesses[0]} is the file of another image"
        same = self._by_end.get(_key(posixpath.basename(_spellings(name)[-1])), ())
        return f"{' and '.join(sorted(same)[:3])} has its name in another folder" if same else ""

    def folders_of(self, name: str) -> list[str]:
        """Return the folders in which a name is a file, relative and sorted; [] unless there are several files.

        Where there is no such file, the name is shortened from its start until there is one.
        """
        parts = [part for part in _spellings(name)[-1].split(FORWARD) if part not in ("", ".", "..")]
        for start in range(len(parts)):
            end = FORWARD.join(parts[start:])
            if files := [*self._spelt(end), *self._by_end.get(_key(end), ())]:
                folders = {PurePath(file).parents[len(parts) - start - 1].as_posix() for file in files}
                return sorted(folders) if len(files) > 1 else []
        return []

    def _reached(self, name: str) -> str | None:
        """Return the file that a name is a path to."""
        if name in self.files:
            return name
        for spelling in _spellings(name):
            if spelling in self.files:
                return spelling
            if spelling.startswith((FORWARD, "..")):
                path = Path(os.path.abspath(self.folder / spelling))
                root = Path(os.path.abspath(self.folder))
                if os.path.isfile(path):
                    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        return None

    def guesses(self, name: str) -> list[str]:
        """Return the files that a name may mean if its first folders are left out or missing, or its case is wrong."""
        for spelling in _spellings(name):
            parts = [part for part in spelling.split(FORWARD) if part not in ("", ".", "..")]
            for start in range(len(parts)):
                if files := self._spelt(FORWARD.join(parts[start:])):
                    return files
            if parts and (files := sorted(self._by_end.get(_key(FORWARD.join(parts)), ()))):
                return files
        return []

    def _spelt(self, name: str) -> list[str]:
        """Return the files whose whole path equals a name, regardless of case and of the form of Unicode."""
        return [name] if name in self.files else sorted(self._by_path.get(_key(name), ()))

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        """Map the key (see _key) of every path to the files that have it."""
        index: dict[str, list[str]] = {}
        for file in itertools.filterfalse(_is_hidden, self.files):
            index.setdefault(_key(file), []).append(file)
        return index

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Map the key of every end of a path, the file's own name at least, to the files whose path ends so."""
        index: dict[str, list[str]] = {}
        for file in itertools.filterfalse(_is_hidden, self.files):
            parts = _key(file).split(FORWARD)
            for start in range(1, len(parts)):
                index.setdefault(FORWARD.join(parts[start:]), []).append(file)
        return index


def require_data_folder(folder: Path, content: str) -> None:
    """Raise BenchError unless there is such a folder; content names what it is to hold."""
    if folder.is_file():
        raise BenchError(f"{folder}: is a file; unpack it if it is an archive, and give the folder")
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; give the one that holds {content}")


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files below a folder that have one of these suffixes in any case, sorted.

    Linked sub-folders are included unless they lie below the folder too; hidden files and what macOS puts beside files
    in archives do not count.
    """
    return sorted(folder / file for file in _walk(folder, False) if _suffix(file) in suffixes and not _is_hidden(file))


def files_with(folder: Path, suffix: str, *words: bytes) -> Iterator[Path]:
    """Yield the files of a suffix below a folder that hold all of the words, sorted; each is read when it is next."""
    for path in files_below(folder, suffix):
        content = path.read_bytes()
        if all(word in content for word in words):
            yield path


def visible_files(folder: Path) -> list[str]:
    """Return the files below a folder by which a record may name an image, relative to it and sorted."""
    return sorted(itertools.filterfalse(_is_hidden, _walk(folder)))


def packed_files(folder: Path) -> str:
    """Return the advice to unpack the archives below a folder, which names the first; nothing where there is none."""
    found = files_below(folder, *ARCHIVES)
    more = f" and {len(found) - 1} other archives" if len(found) > 1 else ""
    return f"unpack {found[0].relative_to(folder)}{more}" if found else ""


def folders_below(folder: Path, *names: str) -> list[Path]:
    """Return the folders below a folder that have one of these names, sorted; links and hidden ones as files_below."""
    paths = (prefix.removesuffix(FORWARD) for prefix, _ in _scan(folder, False))
    return sorted(folder / path for path in paths if posixpath.basename(path) in names and not _is_hidden(path))


def image_files(folder: Path) -> list[str]:
    """Return the files below a folder with the suffix of an image, relative and sorted; links as files_below."""
    suffixes = image_suffixes()
    return sorted(file for file in _walk(folder, False) if _suffix(file) in suffixes and not _is_hidden(file))


def image_suffixes() -> set[str]:
    """Return the suffixes of the image formats that Pillow can read, not of those that it only knows by name."""
    formats = Image.registered_extensions()
    readers = {name: factory for name, (factory, _) in Image.OPEN.items() if name != VIDEO}
    stubs = {name for name, reader in readers.items() if isinstance(reader, type) and issubclass(reader, StubImageFile)}
    return {suffix for suffix, name in formats.items() if name in readers.keys() - stubs}


def image_subsets(folder: Path) -> dict[str, list[Path]]:
    """Return the image files below each sub-folder that has some, by its name; {} where there is no image at all.

    A folder that holds images itself is one subset. Of an only sub-folder, the sub-folders are the subsets.
    """
    subsets: dict[str, list[Path]] = {}
    for file in image_files(folder):
        top, _, rest = file.partition(FORWARD)
        subsets.setdefault(top if rest else "", []).append(folder / file)
    if "" in subsets:
        return {folder.name: [path for paths in subsets.values() for path in paths]}
    if len(subsets) == 1:
        (name,) = subsets
        return image_subsets(folder / name)
    return subsets


def role_of(path: PurePath) -> str:
    """Return train, val or test, whichever word comes last in the last part of a path that has one; else nothing."""
    for part in reversed(path.parts):
        if words := ROLE.findall(part.lower()):
            return str(words[-1])
    return ""


def _walk(folder: Path, twice: bool = True) -> Iterator[str]:
    """Yield the files below a folder, relative to it; a link that leads nowhere is no file. twice: see _scan."""
    for prefix, entries in _scan(folder, twice):
        yield from (f"{prefix}{entry.name}" for entry in entries if _leads_to(os.DirEntry.is_file, entry))


def _leads_to(kind: Callable[[os.DirEntry[str]], bool], entry: os.DirEntry[str]) -> bool:
    try:
        return kind(entry)
    except OSError:  # a link to itself
        return False


def _scan(folder: Path, twice: bool) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield a folder and all folders below it: the path relative to the first, with a slash at its end, and entries.

    A link to a folder is followed unless that folder is above the link. twice: whether a link to a folder below the
    first one is followed too, so that its files come twice. A folder that does not exist holds nothing. In a results
    folder, RESULTS_FOLDERS are passed over.
    """
    root = os.path.realpath(folder) + os.sep
    stack: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while stack:
        prefix, above = stack.pop()
        try:
            with os.scandir(folder / prefix) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            raise BenchError(f"{folder / prefix}: may not be listed; ask for the right to read it") from error
        if any(entry.name == RESULTS_MARK for entry in entries):
            entries = [entry for entry in entries if entry.name not in RESULTS_FOLDERS]
        yield prefix, entries
        for entry in entries:
            if not _leads_to(os.DirEntry.is_dir, entry):
                continue
            linked = entry.is_symlink()
            real = os.path.realpath(entry.path) if linked else f"{above[-1]}/{entry.name}"
            if real not in above and (twice or not linked or not real.startswith(root)):
                stack.append((f"{prefix}{entry.name}/", (*above, real)))


def _suffix(file: str) -> str:
    return posixpath.splitext(file)[1].lower()


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") or part == UNPACKED_BY_MACOS for part in file.split(FORWARD))


def _spellings(name: str) -> list[str]:
    """Return the ways in which exporters write a path: as it is, with backslashes, as an address, with %20."""
    path = name.replace("\\", FORWARD)
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        path = urlsplit(path).path
    elif re.match(r"[A-Za-z]:/", path):
        path = path[2:]  # the drive of a Windows path
    spellings = [name, path, unquote(path)]
    return list(dict.fromkeys(map(posixpath.normpath, spellings)))


def _key(name: str) -> str:
    """Return a key that is the same for names that differ only in case or in the form of Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
