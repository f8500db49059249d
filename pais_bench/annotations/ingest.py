"""Convert the COCO records of a subset to tables: validated, repaired on request, and grouped by image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pais_bench.annotations.arrow import ANNOTATIONS, IMAGES
from pais_bench.annotations.complete import as_integer
from pais_bench.annotations.panoptic import is_thing
from pais_bench.annotations.repair import AnnotationRepair, DroppedRecord
from pais_bench.annotations.rle_columns import IntArray, InvalidRecords
from pais_bench.annotations.validate import (
    FAULTS,
    Annotations,
    Images,
    Record,
    abbreviate,
    canonical_json,
    category_ids,
    fault_message,
    find_duplicates,
    find_faults,
    image_columns,
)
from pais_bench.errors import BenchError


@dataclass(frozen=True)
class Subset:
    """Hold the COCO records of a subset, such as the training set; source is the file that messages name.

    extra is what the file holds beside its lists (info, licenses) | dropped is what the dataset itself left out | notes
    says in a line each what was accepted although COCO's format does not have it.
    """

    source: str
    folder: Path
    images: Sequence[Record]
    annotations: Sequence[Record]
    categories: Sequence[Record]
    extra: Mapping[str, Any] = field(default_factory=dict)
    dropped: Sequence[DroppedRecord] = ()
    notes: Sequence[str] = ()


class Ingested(NamedTuple):
    """Hold the tables of a subset, its classes sorted by id, what a repair did, and notes of a line.

    A class has id and name, and where it is stuff isthing, 0.
    annotations are the records as they are stored | emptied are the ids of images that had annotations, all of which a
    repair dropped for their masks.
    """

    tables: dict[str, pa.RecordBatch]
    classes: list[dict[str, Any]]
    annotations: list[Record]
    repaired: list[DroppedRecord]
    notes: list[str]
    emptied: Collection[int]


def ingest(subset: Subset, repair: bool = False, labelled: bool = False) -> Ingested:
    """Convert a subset to tables; raise BenchError that names the file and the id of the first invalid record.

    A repair does what FAULTS has for a fault, and refuses the others. In a labelled subset, where an image without an
    annotation has no object, it drops the images that lost all of theirs, unless no annotation is left.
    """
    ingested = _ingest(subset, repair)
    if labelled and ingested.annotations and ingested.emptied:
        return _ingest(_without_images(subset, ingested.emptied), repair)
    return ingested


def _ingest(subset: Subset, repair: bool) -> Ingested:
    categories = _category_ids(subset)
    images = _image_columns(subset)
    dropped = {image["id"] for record in subset.dropped if type((image := record.record).get("id")) is int}
    work = AnnotationRepair(subset.source, subset.annotations, images, categories, dropped, repair)
    annotations = work.columns()
    _require_stuff_once(subset, images, annotations)
    try:
        metadata = {key: canonical_json(getattr(subset, key)).encode() for key in ("categories", "extra")}
    except InvalidRecords as error:
        raise BenchError(f"{subset.source}: {FAULTS[error.fault].problem}; {FAULTS[error.fault].remedy}") from error
    by_id = sorted(subset.categories, key=lambda category: category["id"])
    return Ingested(
        _tables(images, annotations, metadata),
        [
            {"id": category["id"], "name": category["name"], **({} if is_thing(category) else {"isthing": 0})}
            for category in by_id
        ],
        work.kept_records(),
        [*subset.dropped, *work.repaired()],
        [*subset.notes, *work.lines],
        work.emptied(),
    )


def _without_images(subset: Subset, ids: Collection[int]) -> Subset:
    """Return a subset without the images of some ids, whose annotations a repair dropped for their masks."""
    gone = {record.position for record in subset.dropped}
    positions = (position for position in range(len(subset.images) + len(gone)) if position not in gone)
    reason = f"{subset.source}: image {{}}: none of its annotations has a valid mask, so that its objects are unknown"
    dropped = [
        DroppedRecord("images", position, "image without a valid mask", reason.format(image["id"]), image)
        for position, image in zip(positions, subset.images, strict=True)
        if image["id"] in ids
    ]
    kept = [image for image in subset.images if image["id"] not in ids]
    return replace(subset, images=kept, dropped=[*subset.dropped, *dropped])


def drop_parents(subsets: Mapping[str, Subset]) -> dict[str, Subset]:
    """Return subsets without the categories that are only parents of others, such as the one that Roboflow exports.

    Such a category has no annotation in any subset, and its name is the supercategory of another one.
    """
    used = {
        as_integer(annotation.get("category_id"))
        for subset in subsets.values()
        for annotation in subset.annotations
        if isinstance(annotation, Mapping)
    }
    return {name: _drop_parents(subset, used) for name, subset in subsets.items()}


def _drop_parents(subset: Subset, used: Collection[int | None]) -> Subset:
    supercategories: set[object] = set()
    unused: dict[int, str] = {}
    for position, category in enumerate(subset.categories):
        if isinstance(category, Mapping):
            name, supercategory = category.get("name"), category.get("supercategory")
            if as_integer(category.get("id")) in used:
                supercategories |= {supercategory} if isinstance(supercategory, str) else set()
            elif isinstance(name, str):
                unused[position] = name
    parents = {position: name for position, name in unused.items() if name in supercategories}
    if not parents:
        return subset
    names = ", ".join(abbreviate(name) for name in parents.values())
    note = f"{subset.source}: no class: {names}, which has no annotation and is the supercategory of others"
    kept = [category for position, category in enumerate(subset.categories) if position not in parents]
    return replace(subset, categories=kept, notes=[*subset.notes, note])


def require_objects(name: str, source: str, ingested: Ingested) -> None:
    """Raise BenchError where a training or validation set has nothing to learn or to find; stuff is no object."""
    if name not in ("train", "val") or _shown(ingested):
        return
    crowd = ingested.tables["annotations"].column("iscrowd")
    reason = f"all of its {len(crowd)} annotations are crowd regions" if len(crowd) else "it has no annotation"
    remedy = "set iscrowd to 0 for single objects" if len(crowd) else "annotate some of its images"
    if len(crowd) and not all(map(is_thing, ingested.classes)):
        reason, remedy = reason.replace("regions", "regions or stuff"), f"{remedy}, and isthing to 1 for their classes"
    faulty = [record.reason for record in ingested.repaired if record.list == "annotations"]
    if faulty and not len(crowd):
        reason, remedy = f"its {len(faulty)} annotations are faulty", faulty[0].removeprefix(f"{source}: ")
    raise BenchError(f"{source}: no object to {'learn' if name == 'train' else 'find'}: {reason}; {remedy}")


def require_shared_class(source: str, train: Ingested, val: Ingested) -> None:
    """Raise BenchError where val shows no class that is learnt: every AP would be 0 or undefined; source is val's."""
    learnt, measured = _shown(train), _shown(val)
    if learnt and measured and learnt.isdisjoint(measured):
        raise BenchError(
            f"{source}: val shows only {_name_some(val, measured)}, and train only {_name_some(train, learnt)}: no "
            f"class that is learnt can be measured; name the classes of both alike, or choose other images for val"
        )


def _shown(ingested: Ingested) -> set[int]:
    """Return the ids of the classes of which there is an object; crowd regions and stuff are none."""
    annotations = ingested.tables["annotations"]
    alone = pc.equal(annotations.column("iscrowd"), 0)
    of_objects = pc.unique(annotations.column("category_id").filter(alone)).to_pylist()
    return {category["id"] for category in ingested.classes if is_thing(category)}.intersection(of_objects)


def _name_some(ingested: Ingested, ids: Collection[int]) -> str:
    names = [category["name"] for category in ingested.classes if category["id"] in ids]
    return ", ".join(names[:3] + ["..."] * (len(names) > 3))


def _category_ids(subset: Subset) -> IntArray:
    _require_any(subset, subset.categories, "category")
    for position, fault in find_faults(subset.categories, category_ids):
        raise _error(subset, "category", position, fault)
    ids = category_ids(subset.categories)
    for position in find_duplicates(ids):
        raise _error(subset, "category", position, "duplicate id")
    by_name: dict[str, int] = {}
    for category in subset.categories:
        if (other := by_name.setdefault(category["name"].strip(), category["id"])) != category["id"]:
            raise BenchError(
                f"{subset.source}: category {category['id']} has the name {abbreviate(category['name'])} of category "
                f"{other}; give every class a name of its own"
            )
    return ids


def _image_columns(subset: Subset) -> Images:
    _require_any(subset, subset.images, "image")
    try:
        images = image_columns(subset.images)
    except InvalidRecords:
        for position, fault in find_faults(subset.images, image_columns):
            raise _error(subset, "image", position, fault) from None
        raise
    for position in find_duplicates(images.id):
        raise _error(subset, "image", position, "duplicate id")
    return images


def _require_stuff_once(subset: Subset, images: Images, annotations: Annotations) -> None:
    """Raise BenchError for an image with two annotations of a stuff class: stuff is one region, of many parts."""
    stuff = {category["id"]: category["name"] for category in subset.categories if not is_thing(category)}
    rows = np.flatnonzero(np.isin(annotations.category_id, list(stuff)) & (annotations.iscrowd == 0))
    if not len(rows):
        return
    pairs = np.stack([annotations.row[rows], annotations.category_id[rows]], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse.reshape(-1)] != np.arange(len(rows)))
    if len(repeated):
        second = repeated[0]
        one, other = rows[first[inverse.reshape(-1)[second]]], rows[second]
        name = abbreviate(stuff[int(annotations.category_id[other])])
        raise BenchError(
            f"{subset.source}: image {images.id[annotations.row[other]]} has the annotations {annotations.id[one]} and "
            f"{annotations.id[other]} of {name}, which is stuff; join them in one, or set isthing to 1"
        )


def _require_any(subset: Subset, records: Sequence[Record], noun: str) -> None:
    if not records:
        raise BenchError(f"{subset.source}: it has no {noun}; give a file that has some")


def _error(subset: Subset, noun: str, position: int, fault: str) -> BenchError:
    record = {"image": subset.images, "category": subset.categories}[noun][position]
    return BenchError(fault_message(subset.source, noun, position, record, fault))


def _tables(images: Images, annotations: Annotations, metadata: Mapping[str, bytes]) -> dict[str, pa.RecordBatch]:
    """Group annotations by image; those of one image keep the source's order."""
    order = np.argsort(annotations.row, kind="stable")
    count = np.bincount(annotations.row, minlength=len(images.id)).astype(np.int64)
    rows = [images.id, images.height, images.width, images.records, np.cumsum(count) - count, count]
    records = [annotations.records[row] for row in order.tolist()]
    return {
        "images": _batch([*rows, images.sorted_id, images.sorted_row], IMAGES.with_metadata(metadata)),
        "annotations": _batch(
            [order, annotations.category_id[order], annotations.iscrowd[order], records], ANNOTATIONS
        ),
    }


def _batch(columns: Sequence[Any], schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)], schema=schema
    )
