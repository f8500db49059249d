"""Tell photos from pictures that tools make of them, such as masks, depth and overlays, by folder and name."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pais_bench.converters.formats.base import LABELS
from pais_bench.images.files import image_files

FOLDER = re.compile(
    rf"{LABELS.pattern}|^annotation|ground_?truth|gt_?(fine|coarse)|panoptic|semantic|segmentation|outline|contour"
    r"|predict(ion|ed)|overlay|visuali[sz]|saliency|heat_?map|depth|disparity|thumbnail|preview|(?<![a-z])(gt|segs?"
    r"|annotated|instance_?ids?|instances?$|preds?|vis|viz|thumbs?|edges?|flows?|normals|normal_?maps?|results?"
    r"|outputs?)(?![a-z])"
)
"""Words in the names of folders of such pictures, in lower case."""
NAME = re.compile(
    r"[_-](cp_)?(masks?|labels?|outlines?|flows?|output|overlays?|pred(iction)?s?|depth|disp(arity)?|seg(mentation)?s?"
    r"|vis(uali[sz]ation)?|heatmap|contours?|edges?|thumb(nail)?|annotated|gt|fg|centers|instance_(id|color)_rgb)$",
    re.IGNORECASE,
)
"""What tools put behind the name of a photo to name a picture of it."""
ENDS = ("", "_img", "_rgb")
"""What the names of photos end in where those of the pictures have NAME, as with Cellpose and CVPPP's leaves."""


def continues_photo(path: Path, others: Collection[Path]) -> bool:
    """Return whether a path without suffix is that of a picture of a photo beside it: the photo's name, then NAME."""
    name = NAME.sub("", path.name)
    return name != path.name and any(path.with_name(name + end) in others for end in ENDS)


def drawn_pictures(folder: Path, named: Collection[Path]) -> list[str]:
    """Return the image files below a folder, relative to it, that are made from photos.

    They are in a folder named like one of such pictures, or their name continues that of a photo beside them. named
    are the resolved paths of files that are known to be photos.
    """
    files = image_files(folder)
    stems = {Path(file).with_suffix("") for file in files}
    found = []
    for file in files:
        path = Path(file)
        in_folder = any(FOLDER.search(part.lower()) for part in path.parent.parts)
        if (in_folder or continues_photo(path.with_suffix(""), stems)) and (folder / file).resolve() not in named:
            found.append(file)
    return found


def note_drawn(paths: Collection[Path]) -> str:
    """Return the note that pictures are left out."""
    return (
        f"left out: {len(paths)} image files that seem to be made from photos, by their folder or name, the first: "
        f"{min(paths)}; rename them if they are photos"
    )
