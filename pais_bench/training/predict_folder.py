"""Predict any images below a folder with a trained network, and write what it finds as it is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from pycocotools import mask as rle

from pais_bench.annotations.rle import compress, decode_mask
from pais_bench.data.folder import FolderImage, load_folder
from pais_bench.study.run import Run
from pais_bench.training.original import to_records
from pais_bench.training.polygons import to_polygons
from pais_bench.training.predict import BATCH_SIZE
from pais_bench.types import Backend, Instances, Keep

Record = dict[str, Any]
Prediction = tuple[FolderImage, list[Record]]


@torch.no_grad()
def predict_folder(
    network: Backend,
    run: Run,
    folder: Path,
    names: Sequence[str],
    categories: Sequence[int],
    keep: Keep,
    device: torch.device,
    workers: int,
) -> Iterator[Prediction]:
    """Yield each image and its COCO result records, in its upright pixels, with file_name and mask_iou.

    categories are the ids of the network's classes, in its order; keep selects detections. An image that cannot be used
    has its fault and no record.
    """
    for images in load_folder(folder, names, run.input, BATCH_SIZE, workers, device):
        views = [image.view.image for image in images if image.view is not None]
        detections = iter(network.predict(views, keep=keep) if views else ())
        for image in images:
            yield image, _records(image, next(detections), categories) if image.view is not None else []


def _records(image: FolderImage, instances: Instances, categories: Sequence[int]) -> list[Record]:
    assert image.view is not None
    mask_iou = instances.mask_iou.tolist()
    return [
        {"image_id": image.id, "file_name": image.name, **record, "mask_iou": mask_iou[index]}
        for index, record in to_records(instances, image.view, image.size, categories)
    ]


class ResultsFile:
    """Write a COCO results file: a list of records."""

    def __init__(self, file: TextIO) -> None:
        """Begin the list."""
        self.file, self.count = file, 0
        self.file.write("[")

    def write(self, image: FolderImage, records: Sequence[Record]) -> None:
        """Write the records of an image."""
        for record in records:
            self.file.write(f"{',' if self.count else ''}\n{json.dumps(record)}")
            self.count += 1

    def close(self) -> None:
        """End the list."""
        self.file.write("\n]\n")


class LabelsFile:
    """Write a COCO dataset file: images, annotations numbered from 1, and categories, as annotation tools read it.

    filled counts the annotations whose polygons fill a hole of the mask.
    """

    def __init__(self, file: TextIO, categories: Sequence[Record], as_rle: bool) -> None:
        """Begin the annotations; as_rle writes masks as they are instead of polygons."""
        self.file, self.categories, self.as_rle = file, categories, as_rle
        self.images: list[Record] = []
        self.count = self.filled = 0
        self.file.write('{"annotations": [')

    def write(self, image: FolderImage, records: Sequence[Record]) -> None:
        """Write the records of an image as annotations; an image with a fault is left out."""
        if image.fault:
            return
        height, width = image.size
        self.images.append({"id": image.id, "file_name": image.name, "height": height, "width": width})
        for record in records:
            segmentation = record["segmentation"]
            if not self.as_rle:
                segmentation, filled = to_polygons(decode_mask(segmentation, image.size))
                self.filled += filled
            rasterised = compress(segmentation, image.size)
            self.file.write("," if self.count else "")
            self.count += 1
            annotation = {
                "id": self.count,
                **{key: record[key] for key in ("image_id", "category_id", "score", "mask_iou")},
                "segmentation": segmentation,
                "bbox": rle.toBbox(rasterised).tolist(),
                "area": float(rle.area(rasterised)),
                "iscrowd": 0,
            }
            self.file.write(f"\n{json.dumps(annotation)}")

    def close(self) -> None:
        """Write the images and categories after the annotations."""
        end = f',\n"images": {json.dumps(self.images)},\n"categories": {json.dumps(list(self.categories))}}}\n'
        self.file.write(f"\n]{end}")


def keep_above(score: float, mask_iou: float) -> Callable[[Instances], torch.Tensor]:
    """Return a filter that keeps detections of at least this class score and this predicted mask IoU."""
    return lambda detections: (detections.scores >= score) & (detections.mask_iou >= mask_iou)
