"""Find the folder of the photos that an annotation file names, beside masks, depth or predictions of their names."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath

from pais_bench.converters.formats.base import OF_LABELS, PHOTOS
from pais_bench.errors import BenchError
from pais_bench.images.files import ROLE, ImageFolder, role_of
from pais_bench.images.pixels import Size, UnreadableImage, read_header


class PhotoFolders:
    """Find the image folder of an annotation file below a root; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        """Keep the root, and the folders up to two levels below it."""
        self.root = root
        self.listed: dict[Path, ImageFolder] = {}
        near = [path for path in (*root.glob("*/"), *root.glob("*/*/")) if not path.name.startswith(".")]
        self.near = sorted(path for path in near if path.is_dir())

    def find(self, annotations: Path, sizes: Mapping[str, Size | None]) -> Path | None:
        """Return the folder in which most of the names are files; None where no folder has any of them.

        sizes are the (H, W) that the annotation file gives the names. Several folders may have equally many of the
        names. Where their files are the same, the nearest folder is taken. Where they differ, the folder with the
        highest rank is taken (see _rank). Raises BenchError where two different folders have the highest rank.
        """
        names = list(sizes)
        role = role_of(annotations.relative_to(self.root))
        same_role = [path for path in self.near if role and role_of(path.relative_to(self.root)) == role]
        folders = [*same_role, annotations.parent / "images", self.root / "images", annotations.parent, self.root]
        same_name = self._list(self.root).folders_of(names[0]) if names else []
        folders += [self.root / path for path in same_name if role_of(PurePath(path)) in (role, "") or not role]
        found = {folder: self._list(folder).find(names) for folder in dict.fromkeys(folders) if folder.is_dir()}
        counts = {folder: len(names) - files.count(None) for folder, files in found.items()}
        best = max(counts, key=lambda folder: counts[folder])
        if not counts[best]:
            return None
        ranks = {best: (True, 0, 0.0)}
        for folder in (folder for folder in counts if counts[folder] == counts[best]):
            triples = zip(names, found[best], found[folder], strict=True)
            shared = ((name, best / file, folder / other) for name, file, other in triples if file and other)
            name, path, other = next(shared, ("", best, best))
            if path != other and not filecmp.cmp(path, other, shallow=False):
                ranks[best] = self._rank(annotations, name, sizes[name], path)
                ranks[folder] = self._rank(annotations, name, sizes[name], other)
        chosen, *others = (folder for folder in ranks if ranks[folder] == max(ranks.values()))
        if others:
            raise BenchError(
                f"{annotations}: its photos may be those of {chosen} or {others[0]}, which have the same names; move "
                f"the folder that it was not drawn on out of {self.root}"
            )
        self._require_inside(annotations, chosen, next(filter(None, found[chosen])))
        return chosen

    def _require_inside(self, annotations: Path, folder: Path, file: str) -> None:
        """Raise BenchError for a file outside the root that has another one of its name, as of an older copy."""
        path, root = Path(os.path.abspath(folder / file)), os.path.abspath(self.root)
        (inside,) = self._list(self.root).find([path.name])
        if inside and not path.is_relative_to(root) and not filecmp.cmp(path, self.root / inside, shallow=False):
            raise BenchError(
                f"{annotations}: names {path}, outside of {self.root}, where {inside} is another photo of that name; "
                f"leave the folders out of its file names, or put the annotations beside the photos that they are of"
            )

    def _list(self, folder: Path) -> ImageFolder:
        if folder not in self.listed:
            self.listed[folder] = ImageFolder(folder)
        return self.listed[folder]

    def _rank(self, annotations: Path, name: str, size: Size | None, file: Path) -> tuple[bool, int, float]:
        """Return three values by which files of one name in different folders are ranked, the first counting most.

        They are: whether the photo has the size that its record states, which a thumbnail has not | how many parts at
        the end of the file's path are also the end of the name | how much its folders are named like folders of photos:
        -1 if one is named like a folder of labels, 0 to 2 for the mean of _photo_words over the folders, 3 if they are
        also named like the subset. The root and the folder of the annotations count as folders of photos, unless they
        are named like one of labels.
        """
        fits = _fits(file, size)
        pairs = zip(reversed(PurePosixPath(name.replace("\\", "/")).parts), reversed(file.parts), strict=False)
        ending = len(list(itertools.takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs)))
        words = [part.lower() for part in file.parent.parts[len(self.root.parts) :]]
        if any(OF_LABELS.search(word) for word in words):
            return fits, ending, -1
        own = not words or file.parent in (self.root, annotations.parent)
        photos = 2 if own else sum(map(_photo_words, words)) / len(words)
        role = role_of(annotations.relative_to(self.root))
        return fits, ending, photos + (photos == 2 and role != "" and role_of(Path(*words)) == role)


def _fits(path: Path, size: Size | None) -> bool:
    try:
        return size is not None and read_header(path).is_turned(size) is not None
    except UnreadableImage:
        return False


def _photo_words(name: str) -> int:
    """Return 2 for a name that has only words for photos and subsets, 1 for one that has other words too, else 0."""
    rest = PHOTOS.sub("", ROLE.sub("", name))
    return 2 if not re.search("[a-z]", rest) else int(bool(PHOTOS.search(name)))
