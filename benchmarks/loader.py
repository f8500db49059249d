"""Measure loaders: images a second and CPU core, MB a batch, and memory, at the sizes of studies/coco.yaml.

python benchmarks/loader.py COCO [--images 40] [--memory]

COCO is a folder with train2017/ and annotations/instances_train2017.json. Rows: this suite's views made on the CPU; the
loader process's half where the device makes the views; the whole view made by the device's operators, on the CPU; and
the same supervised images, with the same sizes and flips but no colour operation, by detectron2's steps (Pillow, u8,
polygons), mmdet's (OpenCV, u8, bitmaps or polygons) and torchvision's references (v2 transforms, and their default,
which leaves the resize to the model). Interleaved, one thread. The steps of the other frameworks are imitated, so that
none has to be installed. --memory loads, in a process of its own, batches of 4000 x 3000 photos of 100 objects.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_rle
from torchvision import tv_tensors
from torchvision.transforms import v2

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.data import recipe
from pais_bench.data.loader import LABELLED, BatchDataset
from pais_bench.data.packed import PackedBatch
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.study.study import Study


def main() -> None:
    """Print a table of each stream, or the memory that large photos need."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coco", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.memory:
            make_large_photos(Path(folder, "coco"))
            measure_memory(open_dataset(Path(folder, "coco"), Path(folder, "store"), "mean_teacher"))
            return
        supervised = open_dataset(arguments.coco, Path(folder), "supervised")
        supervised.pools = supervised.pools[LABELLED], ()
        measure("supervised", supervised, arguments.images // 4, 4, others(supervised, arguments.coco / "train2017"))
        measure("4 + 12", open_dataset(arguments.coco, Path(folder), "mean_teacher"), arguments.images // 8, 16, {})


def open_dataset(coco: Path, folder: Path, method: str) -> BatchDataset:
    """Prepare COCO once, and return the batches of Mask R-CNN with a fifth of the images labelled."""
    values = load_study("coco").model_dump()
    values["split"] |= {"percents": [20], "folds": [1], "family": "stratified"}
    run = Study(**values).run(20, 1, "mask_rcnn", method)
    if not (folder / "dataset.json").exists():
        plugin = plugins.load("datasets", "coco")
        options = plugin.Options()
        options = plugin.Options(val_annotations=options.train_annotations, val_images=options.train_images)
        plugin.Dataset(options, coco).prepare(folder, "coco")
    store = Store.open(folder, "train")
    return BatchDataset(run, store, draw_split(store, run.dataset, run.split))


def measure(
    title: str, dataset: BatchDataset, batches: int, images: int, others: dict[str, Callable[[int], int]]
) -> None:
    """Print images a second and core, and MB a batch, of every way to load the same batches."""
    cpu = torch.device("cpu")
    ways: dict[str, Callable[[int], int]] = {
        "ours, views on the CPU": lambda step: size_of(dataset.pack(step)),
        "ours, views on the device: the loader process": lambda step: size_of(dataset.pack(step, True)),
        "ours, views on the CPU, unpacked": lambda step: len(dataset.pack(step).unpack(cpu).labelled),
        "ours, views on the device, unpacked by a CPU": lambda step: len(dataset.pack(step, True).unpack(cpu).labelled),
        **others,
    }
    seconds: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for way in ways.values():
        way(0)
    for step in range(1, batches + 1):
        for name, way in ways.items():
            begin = time.process_time()
            sizes[name] += way(step)
            seconds[name] += time.process_time() - begin
    print(f"{title}: {batches} batches of {images} images")
    for name in ways:
        rate, size = batches * images / seconds[name], sizes[name] / batches / 1e6
        print(f"  {rate:7.1f} images/s and core  {f'{size:6.1f} MB' if size > 0.01 else '':9}  {name}", flush=True)


def size_of(batch: PackedBatch) -> int:
    """Return the bytes that a loader process hands over."""
    return batch.buffer.numel()


def others(dataset: BatchDataset, folder: Path) -> dict[str, Callable[[int], int]]:
    """Return the supervised batches of other frameworks: each loads a step's images and returns their bytes."""
    ways: dict[str, Callable[[Path, list[Any], recipe.Recipe], int]] = {
        "detectron2's steps: Pillow, u8, polygons": detectron2,
        "mmdet's steps: OpenCV, u8, bitmaps": lambda *image: mmdet(*image, bitmaps=True),
        "mmdet's steps: OpenCV, u8, polygons": lambda *image: mmdet(*image, bitmaps=False),
        "torchvision's references: Pillow, f32, bool masks": lambda *image: torchvision(*image, resize=True),
        "torchvision's references by default: native size": lambda *image: torchvision(*image, resize=False),
    }

    def load(way: Callable[[Path, list[Any], recipe.Recipe], int], step: int) -> int:
        total = 0
        for position in dataset._positions(step, 4):
            store, image_id, rng = dataset._draw(LABELLED, position)
            made = recipe.weak(store.size(image_id), dataset.run.input, rng)
            objects = [one["segmentation"] for one in store.annotations(image_id) if not one["iscrowd"]]
            total += way(store.path(image_id), objects, made)
        return total

    return {name: (lambda step, way=way: load(way, step)) for name, way in ways.items()}


def detectron2(path: Path, objects: list[Any], made: recipe.Recipe) -> int:
    """Decode and resize by Pillow, flip, move polygons."""
    image = Image.open(path).convert("RGB").resize(made.size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)[:, ::-1] if made.flip else np.asarray(image)
    tensor = torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return tensor.nbytes + sum(polygon.nbytes for polygons in move(objects, made) for polygon in polygons)


def mmdet(path: Path, objects: list[Any], made: recipe.Recipe, bitmaps: bool) -> int:
    """Decode and resize by OpenCV, flip, resize bitmaps or move polygons."""
    image = cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR), made.size[::-1])
    image = cv2.flip(image, 1) if made.flip else image
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    if not bitmaps:
        return tensor.nbytes + sum(polygon.nbytes for polygons in move(objects, made) for polygon in polygons)
    masks = []
    for polygons in objects:
        mask = coco_rle.decode(coco_rle.merge(coco_rle.frPyObjects(polygons, *made.source)))
        mask = cv2.resize(mask, made.size[::-1], interpolation=cv2.INTER_NEAREST)
        masks.append(mask[:, ::-1] if made.flip else mask)
    return tensor.nbytes + (np.stack(masks).nbytes if masks else 0)


def torchvision(path: Path, objects: list[Any], made: recipe.Recipe, resize: bool) -> int:
    """Decode by Pillow, decode the masks at the size of the file, and transform both."""
    image = Image.open(path).convert("RGB")
    masks = [coco_rle.decode(coco_rle.merge(coco_rle.frPyObjects(one, *made.source))) for one in objects]
    stacked = torch.from_numpy(np.stack(masks)).bool() if masks else torch.zeros((0, *made.source), dtype=torch.bool)
    steps = [v2.Resize(list(made.size), antialias=True)] if resize else []
    flip = v2.RandomHorizontalFlip(1.0 if made.flip else 0.0)
    transform = v2.Compose([*steps, flip, v2.ToImage(), v2.ToDtype(torch.float, scale=True), v2.ToPureTensor()])
    pixels, drawn = transform(image, tv_tensors.Mask(stacked))
    return int(pixels.nbytes + drawn.nbytes)


def move(objects: list[Any], made: recipe.Recipe) -> list[list[Any]]:
    """Return polygons in the pixels of a view."""
    (a, _, b), (_, c, d), _ = made.matrix
    return [[np.asarray(polygon).reshape(-1, 2) * (a, c) + (b, d) for polygon in polygons] for polygons in objects]


def make_large_photos(root: Path) -> None:
    """Write 20 photos of 4000 x 3000 pixels with 100 polygons each."""
    rng, annotations, images = np.random.default_rng(0), [], []
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for number in range(1, 21):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((4000, 3000), Image.Resampling.BICUBIC).save(root / "train2017" / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 3000, "width": 4000})
        for _ in range(100):
            centre, length = rng.uniform((300, 300), (3700, 2700)), 250 * rng.uniform(0.5, 1, 40)
            points = centre + np.stack((np.cos(angle), np.sin(angle)), 1) * length[:, None]
            record = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "category_id": 1}
            segmentation = [points.ravel().round(1).tolist()]
            annotations.append({**record, "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def measure_memory(dataset: BatchDataset) -> None:
    """Print the peak memory of this process before and after batches, in both ways."""
    print(f"  {peak():6.0f} MB before the first batch")
    for views_on_device in (False, True):
        begin = time.process_time()
        for step in range(2):
            size = size_of(dataset.pack(step, views_on_device))
        where = "device" if views_on_device else "CPU"
        seconds = (time.process_time() - begin) / 2
        print(f"  {peak():6.0f} MB, {seconds:.1f} s and {size / 1e6:.0f} MB a batch with views on the {where}")
    dataset[0]
    print(f"  {peak():6.0f} MB with a batch unpacked on the CPU")


def peak() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
