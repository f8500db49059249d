"""Tabulate the images with the most errors, with those of each method."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.reports.error_analysis import MISSING, analyses, require_store
from pais_bench.reports.external_rows import source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport
from pais_bench.study.study import Study

IMAGES = 10
"""Images that the table shows."""


class Report(TableReport):
    """Write a row per image and a column per method."""

    title = "Images with the most errors"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return of every image and method the objects and the mean numbers found, missed and false.

        Means are over all evaluated runs of the method, the worst images come first. Raises NothingToShow without any.
        """
        store = require_store(study, results)
        counts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        image_ids: list[int] = []
        for one in analyses(results, store):
            images = one.content["by_image"]
            image_ids = images["id"]
            counts[one.method].append(np.array([images[name] for name in ("objects", "found", "false")]))
        if not counts:
            raise NothingToShow(MISSING)
        names, frames = [store.path(image_id).name for image_id in image_ids], []
        for method, of_runs in counts.items():
            objects, found, false = np.mean(of_runs, axis=0)
            columns = {"image_id": image_ids, "image": names, "method": method, "runs": len(of_runs)}
            numbers = {"objects": objects.astype(int), "found": found, "missed": objects - found, "false": false}
            frames.append(pd.DataFrame(columns | numbers))
        frame = pd.concat(frames)
        errors = (frame["missed"] + frame["false"]).groupby(frame["image_id"]).mean()
        order = frame["image_id"].map(errors)
        return frame.assign(_order=-order).sort_values(["_order", "image_id"], kind="stable").drop(columns="_order")

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the worst IMAGES."""
        methods = list(dict.fromkeys([*study.methods, *frame["method"]]))
        rows = []
        for image_id, image in list(frame.groupby("image_id", sort=False))[:IMAGES]:
            cells = {row.method: f"{row.missed:.1f} + {row.false:.1f}" for row in image.itertuples()}
            first = image.iloc[0]
            head = [str(first["image"]), str(image_id), str(first["objects"])]
            rows.append([*head, *(cells.get(method, "–") for method in methods)])
        caption = (
            f"The {len(rows)} images of {study.dataset.label} with the most errors of the {study.printed}: missed "
            "objects + false detections, mean over all evaluated runs of a method. Of each run those detections count "
            "that reach the score with its highest F1 at IoU 0.5."
        )
        notes = source_notes(results) if frame["method"].str.contains("‡").any() else []
        return Table(caption, ["image", "id", "objects", *methods], rows, 3, notes)
