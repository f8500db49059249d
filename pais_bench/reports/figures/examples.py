"""Show the predictions of teacher and student on images with errors, and the weights of each pseudo-label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pais_bench.annotations import rle
from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError, NothingToShow
from pais_bench.images.pixels import read_pixels
from pais_bench.reports.cells import baseline, bounds
from pais_bench.reports.chart import Gallery
from pais_bench.reports.charts import examples as charts
from pais_bench.reports.example_errors import count_errors, mark_correct
from pais_bench.reports.figure import FigureReport, shown
from pais_bench.reports.outlines import outlines
from pais_bench.reports.results import Results
from pais_bench.reports.style import COLOURS, draw
from pais_bench.runs.files import examples_file
from pais_bench.study.study import Study

GROUND_TRUTH = "ground truth"
MAX_METHODS = 3
MAX_IMAGES = 3
MAX_LINE = 14
"""Characters of a line of a label."""
ROLES = (GROUND_TRUTH, "teacher", "student")
CLASSES = (*COLOURS, "#F0E442", "#999999")
"""A colour for each of twelve classes, repeated for more; the palette with its yellow, and a grey."""
MAX_LABELS = 6
"""Masks of an image that are labelled with their numbers; more labels would hide each other and small objects."""


class Report(FigureReport):
    """Draw a row per image: ground truth, and of each method the teacher with its weights, and the student."""

    title = "Predictions of teacher and student"
    text_columns = ("network", "method", "image", "role", "category", "counts", "best")
    number_columns = (
        "percent",
        "fold",
        "height",
        "width",
        "score",
        "mask_iou",
        "class_weight",
        "mask_weight",
        "correct",
    )
    optional_columns = ("score", "mask_iou", "class_weight", "mask_weight", "correct")
    captions = {
        "examples": "Validation images of the first network, fold and percent that have examples, those with the most "
        "errors of the ones predicted for this figure: ground truth, the teacher's detections that the method keeps, "
        "with class weight and mask weight, and the student's, with class score. Dashed: no object of the class has a "
        "mask IoU of 0.5 with it. Models are those after the last step, or of the best evaluation where the column "
        "says so."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return a row per mask of MAX_IMAGES images, with its RLE, and one of role image per image.

        The images are those with the most errors over the shown methods and models; correct is 1 for a detection that
        has an object of its class, 0 for another one.
        """
        store, runs = results.validation(study), _select_runs(study, results)
        if store is None:
            raise NothingToShow(f"The dataset '{study.dataset.label}' is not prepared here.")
        rows = [
            row for _, run in runs.iterrows() for row in _rows(run, results.path(run["folder"], examples_file), store)
        ]
        columns = [*self.text_columns, *self.number_columns]
        frame = pd.DataFrame(rows, columns=columns).drop_duplicates([*self.text_columns, "percent", "fold"])
        return worst_images(frame)

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> dict[str, Gallery]:
        """Return the same panels, whose masks show their numbers where they are pointed at."""
        columns = _columns(shown(study.methods, points.loc[points["role"] == "image", "method"]))
        titles = [_title(points, method, role) for role, method in columns]
        return {self.name: charts.chart(points, columns, titles, _colours(points))}

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw the rows; raise BenchError where an image is not here."""
        images = points[points["role"] == "image"]
        methods = shown(study.methods, images["method"])
        records = images.drop_duplicates("image")[["image", "height", "width"]].itertuples(index=False)
        pixels = {path: read_pixels(Path(path), (int(height), int(width))) for path, height, width in records}
        ratios = [image.shape[0] / image.shape[1] for image in pixels.values()]
        size = (1.55 * (1 + 2 * len(methods)), 0.35 + sum(1.55 * ratio for ratio in ratios))
        return draw(lambda figure: _paint(figure, points, pixels, methods, ratios), size, folder, self.name)


def worst_images(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the MAX_IMAGES images with the most errors, those first, with the column correct."""
    frame = mark_correct(frame, GROUND_TRUTH)
    images = frame.groupby("image", sort=False)
    errors = {image: count_errors(rows, GROUND_TRUTH, ROLES[1:]) for image, rows in images}
    worst = sorted(errors, key=lambda image: -errors[image])[:MAX_IMAGES]
    parts = [frame[frame["image"] == image] for image in worst]
    return pd.concat(parts, ignore_index=True) if parts else frame


def _select_runs(study: Study, results: Results) -> pd.DataFrame:
    """Return the runs to show: one network, percent and fold, at most MAX_METHODS that use unlabelled images."""
    runs = results.runs[[results.path(folder, examples_file).exists() for folder in results.runs["folder"]]]
    semi_supervised = runs[~runs["method"].isin([baseline(study), *bounds(study)])]
    runs = semi_supervised if len(semi_supervised) else runs
    if runs.empty:
        raise NothingToShow(f"No run has {results.path('', examples_file).name}, which `pais-bench predict` writes.")
    first = runs.iloc[0]
    same_cell = (runs[["network", "percent", "fold"]] == first[["network", "percent", "fold"]]).all(axis=1)
    return runs[same_cell].head(MAX_METHODS)


def _rows(run: pd.Series, path: Path, store: Store) -> Iterator[dict[str, Any]]:
    names = dict(store.categories)
    run_keys = {key: run[key] for key in ("network", "method", "percent", "fold")}
    try:
        for example in json.loads(path.read_text(encoding="utf-8")):
            image, size = store.path(example["image_id"]), store.size(example["image_id"])
            if not image.exists():
                raise NothingToShow(f"{image}: the image is not on this machine.")
            keys = {**run_keys, "image": str(image), "height": size[0], "width": size[1]}
            yield {**keys, "role": "image", "best": " ".join(example.get("best", ()))}
            annotations = [record for record in store.annotations(example["image_id"]) if not record["iscrowd"]]
            for role in ROLES:
                for record in annotations if role == GROUND_TRUTH else example[role]:
                    mask = rle.describe_mask(rle.decode_mask(record["segmentation"], size))["segmentation"]["counts"]
                    yield {**keys, **record, "role": role, "category": names[record["category_id"]], "counts": mask}
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: not what `pais-bench predict` writes ({error}); predict again") from error


def _paint(
    figure: Figure, points: pd.DataFrame, pixels: dict[str, Any], methods: list[str], ratios: list[float]
) -> None:
    columns, colours = _columns(methods), _colours(points)
    panels = figure.subplots(len(pixels), len(columns), squeeze=False, gridspec_kw={"height_ratios": ratios})
    for row, (path, image) in enumerate(pixels.items()):
        for column, (role, method) in enumerate(columns):
            axes = panels[row, column]
            masks = points[(points["image"] == path) & (points["role"] == role) & (points["method"] == method)]
            _panel(axes, image, masks, colours)
            if row == 0:
                axes.set_title(_title(points, method, role), fontsize=8)


def _columns(methods: list[str]) -> list[tuple[str, str]]:
    """Return role and method of each column."""
    return [(GROUND_TRUTH, methods[0]), *((role, name) for name in methods for role in ROLES[1:])]


def _colours(points: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each class."""
    categories = sorted(set(points.loc[points["role"] != "image", "category"]))
    return {name: CLASSES[index % len(CLASSES)] for index, name in enumerate(categories)}


def _title(points: pd.DataFrame, method: str, role: str) -> str:
    """Return the title of a column: method and model, and whether its weights are those of the best evaluation."""
    if role == GROUND_TRUTH:
        return role
    best = points.loc[(points["role"] == "image") & (points["method"] == method), "best"]
    return f"{method}\n{role}, best" if role in " ".join(best).split() else f"{method}\n{role}"


def _panel(axes: Axes, image: Any, masks: pd.DataFrame, colours: dict[str, str]) -> None:
    size = image.shape[:2]
    # Paler pixels let the colours of the masks stand out.
    canvas = 0.25 + np.float32(0.75 / 255) * image
    decoded = [rle.decode_mask({"size": list(size), "counts": counts.encode()}, size) for counts in masks["counts"]]
    for mask, category in zip(decoded, masks["category"], strict=True):
        canvas[mask] = 0.45 * canvas[mask] + 0.55 * np.array(to_rgb(colours[category]))
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    labelled: list[tuple[float, float]] = []
    lines: list[Any] = []
    looks: list[tuple[str, Any]] = []
    # Errors are labelled first, and of many masks only those whose label hides no other.
    for index in np.argsort(masks["correct"].fillna(1).to_numpy(dtype=float), kind="stable"):
        mask, row = decoded[index], masks.iloc[index]
        if not mask.any():
            continue
        for points in outlines(mask):
            # A pixel of an image is drawn around its index.
            lines.append(np.vstack([points, points[:1]]) - 0.5)
            looks.append((colours[row["category"]], (0, (3, 1.5)) if row["correct"] == 0 else "solid"))
        centre, position = _position(mask, []), _position(mask, labelled)
        if len(labelled) < MAX_LABELS and (len(masks) <= MAX_LABELS or position == centre):
            labelled.append(position)
            outline = [effects.withStroke(linewidth=1.2, foreground="white")]
            style: Any = {"ha": "center", "va": "center", "fontsize": 5, "linespacing": 0.95, "clip_on": True}
            # A long name is cut at the edge; it must not push the panels apart.
            axes.text(*position, _text(row), path_effects=outline, **style).set_in_layout(False)
    colour, dashes = ([look[index] for look in looks] for index in (0, 1))
    axes.add_collection(LineCollection(lines, colors=colour, linestyles=dashes, linewidths=0.8))


def _position(mask: Any, labelled: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the position of a mask's label, x y px: its centre, or below the labels that would be hidden there."""
    width = mask.shape[1]
    y, x = (float(pixels.mean()) for pixels in np.nonzero(mask))
    x = float(np.clip(x, 0.15 * width, 0.85 * width))
    # A label is about 0.3 of a panel wide, and its two lines are 0.09 of it high.
    for _ in labelled:
        hidden = [y1 for x1, y1 in labelled if abs(x - x1) < 0.3 * width and abs(y - y1) < 0.09 * width]
        y = max(hidden) + 0.09 * width if hidden else y
    return x, y


def _text(row: pd.Series) -> str:
    """Return the class of a mask, and both weights of a pseudo-label, or the score of another detection."""
    name = fill(str(row["category"]), MAX_LINE)
    if not np.isnan(row["class_weight"]):
        return f"{name}\n{row['class_weight']:.2f} | {row['mask_weight']:.2f}"
    return name if np.isnan(row["score"]) else f"{name}\n{row['score']:.2f}"
