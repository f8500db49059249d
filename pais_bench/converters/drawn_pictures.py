"""Tell pictures that tools make from photos, as masks, depth and overlays are, from photos: by folder and by name."""

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
"""What the name of a folder of such pictures has in it, in lower case."""
NAME = re.compile(
    r"[_-](cp_)?(masks?|labels?|outlines?|flows?|output|overlays?|pred(iction)?s?|depth|disp(arity)?|seg(mentation)?s?"
    r"|vis(uali[sz]ation)?|heatmap|contours?|edges?|thumb(nail)?|annotated|gt|fg|centers|instance_(id|color)_rgb)$",
    re.IGNORECASE,
)
"""What tools put behind the name of a photo for what they made of it."""


ENDS = ("", "_img", "_rgb")
"""What a photo has in the place of these ends, as those of Cellpose and of the leaves of CVPPP."""


def continues_photo(path: Path, others: Collection[Path]) -> bool:
    """Return whether a path without suffix continues that of another one beside it as the names of such pictures do."""
    name = NAME.sub("", path.name)
    return name != path.name and any(path.with_name(name + end) in others for end in ENDS)


def drawn_pictures(folder: Path, named: Collection[Path]) -> list[str]:
    """Return the image files below a folder, relative to it, that are made from photos.

    They are in a folder that is named so, or their name continues that of a photo beside them. named are paths of
    photos, resolved, which are none.
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
