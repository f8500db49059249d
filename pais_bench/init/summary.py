"""Summarise a prepared dataset into the few numbers that the rules look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.converters.formats.base import is_in_corners
from pais_bench.images.pixels import Size, UnreadableImage, read_header
from pais_bench.init.division import VARIANT
from pais_bench.splits.draw import draw
from pais_bench.splits.family import ImagePool

PERCENTS = (1, 2, 5, 10, 20, 30, 50)
"""Percents of labelled images that a study may have."""
FOLDS = (1, 2, 3, 4, 5)
HEADERS = 200
"""Images whose colour depth is read, evenly spaced."""
LEVELS = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class DataSummary:
    """Hold what the rules look at; crowd regions do not count.

    images: images of each subset | short_sides: 5 %, 50 % and 95 % quantiles of the training images' shorter sides, px
    | aspect: 95 % quantile of longer to shorter side, 1.. | most_objects: of any training or validation image |
    object_sides: the quantiles 0, 5 .. 100 % of sqrt(w h) of the training objects' boxes, as a part of the shorter side
    of their image | class_images: training images that show a class, by its name | class_objects: training objects |
    unlabelled_classes: most classes without a label in any of FOLDS of the family `stratified`, by percent | modes:
    training images by Pillow's colour mode, of HEADERS of them | same_names: names of photos that are
    in train and val; variants of a photo (division.VARIANT) have one | unannotated: images of train and val that have
    no annotation | may_be_boxes: each training object is a polygon of four points | crowds: those of
    train and val | cornered: training images with an object in all four corners, by the name of its class.
    """

    images: Mapping[str, int]
    short_sides: tuple[float, float, float]
    aspect: float
    most_objects: int
    object_sides: tuple[float, ...]
    class_images: Mapping[str, int]
    class_objects: Mapping[str, int]
    unlabelled_classes: Mapping[int, int]
    modes: Mapping[str, int]
    same_names: int = 0
    unannotated: int = 0
    may_be_boxes: bool = False
    crowds: int = 0
    cornered: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """Return the number of training objects."""
        return sum(self.class_objects.values())

    @property
    def learnable(self) -> list[str]:
        """Return the classes that some training image shows."""
        return [name for name, count in self.class_images.items() if count]

    def object_side(self, quantile: float) -> float:
        """Return a quantile 0..1 of the objects' sides, as a part of the shorter side of their image."""
        return float(np.interp(quantile, LEVELS, self.object_sides))


def summarise(folder: Path) -> DataSummary:
    """Return the summary of a prepared dataset."""
    stores = {name: Store.open(folder, name) for name in Store.subsets(folder)}
    train, val = stores["train"], stores["val"]
    sizes = np.array([train.size(number) for number in train.image_ids], dtype=float)
    short, long = sizes.min(1), sizes.max(1)
    objects, names = train.objects(), dict(train.categories)
    alone = ~objects.crowd
    shown = np.unique(np.stack([objects.image_id[alone], objects.category_id[alone]]), axis=1)[1]
    class_images = {name: int((shown == number).sum()) for number, name in train.categories}
    paths = {name: [stores[name].path(number) for number in stores[name].image_ids] for name in ("train", "val")}
    file_names = [{VARIANT.sub("", path.name) for path in subset} for subset in paths.values()]
    return DataSummary(
        images={name: len(store.image_ids) for name, store in stores.items()},
        short_sides=tuple(np.quantile(short, (0.05, 0.5, 0.95)).tolist()),
        aspect=float(np.quantile(long / short, 0.95)),
        most_objects=max(_most_objects(train), _most_objects(val)),
        object_sides=_object_sides(train),
        class_images=class_images,
        class_objects={name: int((objects.category_id[alone] == number).sum()) for number, name in names.items()},
        unlabelled_classes=_unlabelled_classes(train, sum(count > 0 for count in class_images.values())),
        modes=_modes(paths["train"]),
        same_names=len(file_names[0] & file_names[1]),
        may_be_boxes=_may_be_boxes(train),
        crowds=sum(int(store.objects().crowd.sum()) for store in (train, val)),
        cornered=_cornered(train),
        unannotated=sum(
            len({*store.image_ids}.difference(store.objects().image_id.tolist())) for store in (train, val)
        ),
    )


def _most_objects(store: Store) -> int:
    objects = store.objects()
    counts = Counter(objects.image_id[~objects.crowd].tolist())
    return max(counts.values(), default=0)


def _may_be_boxes(store: Store) -> bool:
    masks = (annotation["segmentation"] for number in store.image_ids for annotation in store.annotations(number))
    return all(
        isinstance(mask, list) and len(mask) == 1 and len(set(zip(mask[0][::2], mask[0][1::2], strict=True))) == 4
        for mask in masks
    )


def _cornered(store: Store) -> dict[str, int]:
    """Return by class how many images have one object in all four corners, as a background is.

    A mask is decoded only where its box is that of the image, give or take a pixel.
    """
    names, counts = dict(store.categories), Counter[str]()
    for number in store.image_ids:
        size = store.size(number)
        found = {
            names[annotation["category_id"]]
            for annotation in store.annotations(number)
            if not annotation["iscrowd"]
            and _is_whole(annotation["bbox"], size)
            and is_in_corners(decode_mask(annotation["segmentation"], size))
        }
        counts.update(found)
    return dict(counts.most_common())


def _is_whole(box: Sequence[float], size: Size) -> bool:
    x, y, width, height = box
    return max(x, y) < 1 and x + width > size[1] - 1 and y + height > size[0] - 1


def _object_sides(store: Store) -> tuple[float, ...]:
    sides: list[float] = []
    for number in store.image_ids:
        shorter = min(store.size(number))
        boxes = [annotation["bbox"] for annotation in store.annotations(number) if not annotation["iscrowd"]]
        sides += [float(np.sqrt(width * height)) / shorter for _, _, width, height in boxes]
    return tuple(np.quantile(sides, LEVELS).tolist())


def _unlabelled_classes(store: Store, classes: int) -> dict[int, int]:
    """Return by percent how many classes have no label in the worst fold.

    It is 0 where there are as many images as classes, because the stratified family first takes an image of each class;
    no split is drawn then.
    """
    pool, objects, result = ImagePool.of(store), store.objects(), {}
    for percent in PERCENTS:
        count = int(percent / 100 * len(pool.ids))
        result[percent] = classes if count == 0 else 0
        if 0 < count < classes:
            for fold in FOLDS:
                ids = draw("stratified", pool, percent, fold).ids
                labelled = np.isin(objects.image_id, ids) & ~objects.crowd
                result[percent] = max(result[percent], classes - len(np.unique(objects.category_id[labelled])))
    return result


def _modes(paths: list[Path]) -> dict[str, int]:
    modes: Counter[str] = Counter()
    for row in np.unique(np.linspace(0, len(paths) - 1, min(HEADERS, len(paths))).astype(int)):
        try:
            modes[read_header(paths[row]).mode] += 1
        except UnreadableImage:
            modes["unreadable"] += 1
    return dict(modes.most_common())
