"""Write a small data set in COCO format, of images with one red square each, and edit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

OPTIONS = {
    "train_annotations": "train.json",
    "train_images": "train",
    "val_annotations": "val.json",
    "val_images": "val",
}


def write_squares(root: Path, train: int = 8, val: int = 3, offset: int = 0) -> Path:
    """Write images of 64 px, whose squares begin at offset pixels more than their number, and return the root.

    The numbers of val continue those of train, so that no image is in both.
    """
    for subset, count in (("train", train), ("val", val)):
        (root / subset).mkdir(parents=True)
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "red"}]}
        for number in range(1, count + 1):
            low = number + offset + (train if subset == "val" else 0)
            high = low + 24
            picture = Image.new("RGB", (64, 64), (90, 120, 90))
            ImageDraw.Draw(picture).rectangle((low, low, high - 1, high - 1), fill=(220, 40, 40))
            picture.save(root / subset / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
            polygon = [low, low, high, low, high, high, low, high]
            content["annotations"].append(
                {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 576}
                | {"bbox": [low, low, 24, 24], "segmentation": [polygon]}
            )
        (root / f"{subset}.json").write_text(json.dumps(content))
    return root


def edit(path: Path, **values: Any) -> None:
    """Change values of the first annotation of a file."""
    content = json.loads(path.read_text())
    content["annotations"][0] |= values
    path.write_text(json.dumps(content))
