"""Compute panoptic quality with cityscapesscripts, whose evaluator is that of COCO's panoptic format.

A predicted segment matches one of its class with IoU above 0.5; void pixels of the ground truth do not count. PQ is the
sum of the matches' IoU divided by matches + half the false positives and negatives, SQ their mean IoU, RQ the F1 score;
each is the mean over classes. Source: Kirillov et al. (2019), Panoptic segmentation, CVPR.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pais_bench.annotations.panoptic import PanopticMap, is_thing, rasterise, write_map
from pais_bench.errors import BenchError
from pais_bench.evaluation.metrics.base import MetricBase, Numbers, Record
from pais_bench.evaluation.panoptic_merge import merge_records
from pais_bench.optional_packages import import_package

KINDS = {"th": True, "st": False}
"""Whether the classes of PQth and PQst are of things."""


class Metric(MetricBase):
    """Measure the panoptic quality of maps that are merged from the records of things and of stuff."""

    protocols = {"panoptic": "cityscapesScripts PQ"}
    counts_stuff = True

    def require(self, classes: Sequence[Record] | None) -> None:
        """Raise BenchError without cityscapesscripts, and for classes, where they are known, none of which is stuff."""
        _script()
        if classes is not None and all(map(is_thing, classes)):
            raise BenchError(
                "metrics/panoptic: no class of the dataset is stuff, and pixels of no class are void, which PQ leaves "
                "out; set isthing to 0 for classes of stuff, or leave 'panoptic' out of the study's metrics"
            )

    def evaluate(self, ground_truth: Record, records: Sequence[Record]) -> dict[str, Numbers]:
        """Return {"panoptic": PQ SQ RQ PQth PQst, "panoptic_per_class": {class name: PQ}}, 0..1, None where undefined.

        The records of an image are merged into one panoptic map; the masks of its annotations, which may not overlap,
        are the true one, and what none covers is void. Raises BenchError for a set without stuff, whose background
        would be void, and for annotations that overlap.
        """
        script = _script()
        self.require(ground_truth["categories"])
        things = {category["id"] for category in ground_truth["categories"] if is_thing(category)}
        annotations, predictions = defaultdict(list), defaultdict(list)
        for annotation in ground_truth["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        for record in records:
            predictions[record["image_id"]].append(record)
        pairs = []
        with tempfile.TemporaryDirectory() as name:
            folders = Path(name, "true"), Path(name, "predicted")
            for folder in folders:
                folder.mkdir()
            for image in ground_truth["images"]:
                number, size = image["id"], (image["height"], image["width"])
                maps = rasterise(annotations[number], size), merge_records(predictions[number], size, things)
                pairs.append([_write(folder, number, one) for folder, one in zip(folders, maps, strict=True)])
            classes = {category["id"]: category for category in ground_truth["categories"]}
            with contextlib.redirect_stdout(io.StringIO()):
                statistics = script.pq_compute_single_core(0, pairs, *map(str, folders), classes)
        return _numbers(statistics, classes)


def _script() -> Any:
    remedy = "install cityscapesscripts there, or leave 'panoptic' out of the study's metrics"
    return import_package("cityscapesscripts.evaluation.evalPanopticSemanticLabeling", remedy, "metrics/panoptic: ")


def _write(folder: Path, image_id: int, panoptic: PanopticMap) -> Record:
    """Write the PNG of a map, and return the record that the script reads it by."""
    write_map(folder / f"{image_id}.png", panoptic.ids)
    return {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": panoptic.segments}


def _numbers(statistics: Any, classes: dict[int, Record]) -> dict[str, Numbers]:
    """Return the script's averages; it gives 0 to a class without a segment, and divides by 0 where all are such."""
    counts = {number: statistics[number] for number in classes}
    seen = {number: one for number, one in classes.items() if counts[number].tp + counts[number].fp + counts[number].fn}
    everything, by_class = statistics.pq_average(seen, None) if seen else ({}, {})
    kinds = {
        kind: statistics.pq_average(of_kind, None)[0]["pq"] if of_kind else None
        for kind, thing in KINDS.items()
        for of_kind in [{number: one for number, one in seen.items() if is_thing(one) == thing}]
    }
    return {
        "panoptic": {
            **{name: _defined(everything.get(name.lower())) for name in ("PQ", "SQ", "RQ")},
            **{f"PQ{kind}": _defined(value) for kind, value in kinds.items()},
        },
        "panoptic_per_class": {
            one["name"]: _defined(by_class[number]["pq"]) if number in by_class else None
            for number, one in classes.items()
        },
    }


def _defined(value: Any) -> float | None:
    return None if value is None else float(value)
