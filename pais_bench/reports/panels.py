"""What do teacher and student see, and what does each pseudo-label count? A few images, mask by mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pais_bench import pixels
from pais_bench.config import Study
from pais_bench.reports._cells import baseline
from pais_bench.reports._figure import FigureReport
from pais_bench.reports._style import COLOURS, draw
from pais_bench.results import Results
from pais_bench.store import Store
from pais_bench.types import BenchError, LeftOut

METHODS = 3
CLASSES = (*COLOURS, "#F0E442", "#999999")
"""A colour for each of eight classes, then from the first again: the palette's yellow and a grey beside the others."""
NAMED = 6
"""So many masks of an image get their numbers; more hide each other."""


class Report(FigureReport):
    """Draw a row per image: truth, and of each method the teacher with its weights, and the student."""

    stem = "panels"
    texts = ("network", "method", "image", "role", "category", "counts", "best")
    numbers = ("percent", "fold", "height", "width", "score", "quality", "class_weight", "mask_weight")
    figures = {
        "panels": "Validation images of the first network, fold and percent that have them: truth, what the method "
        "keeps of the teacher, with class weight and mask weight, and the student, with the class score. Networks are "
        "those after the last step, or of the best evaluation where it is written."
    }

    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give a row per mask, with its RLE, and one of role image per image."""
        store, chosen = results.validation(study), _chosen(study, results)
        if store is None:
            raise LeftOut(f"The data set '{study.dataset.label}' is not prepared here.")
        rows = [row for _, run in chosen.iterrows() for row in _rows(run, results.path(run["folder"], "panels"), store)]
        frame = pd.DataFrame(rows, columns=[*self.texts, *self.numbers])
        return frame.drop_duplicates([*self.texts, "percent", "fold"])

    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw the rows; raise BenchError where an image is not here."""
        images = points.loc[points["role"] == "image", "image"].drop_duplicates().tolist()
        methods = [name for name in study.methods if (points["method"] == name).any()]
        shown = {path: _opened(path) for path in images}
        ratios = [shape.shape[0] / shape.shape[1] for shape in shown.values()] or [1.0]
        size = (1.55 * (1 + 2 * len(methods)), 0.35 + sum(1.55 * ratio for ratio in ratios))
        return draw(lambda figure: _paint(figure, points, shown, methods, ratios), size, folder, self.stem)


def _chosen(study: Study, results: Results) -> pd.DataFrame:
    """Give the runs to show: one network, percent and fold, at most METHODS that use unlabelled images."""
    there = [results.path(folder, "panels").exists() for folder in results.runs["folder"]]
    runs = results.runs[there]
    others = runs[runs["method"] != baseline(study)]
    runs = others if len(others) else runs
    if runs.empty:
        raise LeftOut(f"No run has {results.path('', 'panels').name}, which `pais-bench predict` writes.")
    first = runs.iloc[0]
    same = (runs[["network", "percent", "fold"]] == first[["network", "percent", "fold"]]).all(axis=1)
    return runs[same].head(METHODS)


def _rows(run: pd.Series, path: Path, store: Store) -> Iterator[dict[str, Any]]:
    names = dict(store.categories)
    about = {key: run[key] for key in ("network", "method", "percent", "fold")}
    try:
        for told in json.loads(path.read_text()):
            image, size = store.path(told["image_id"]), store.size(told["image_id"])
            if not image.exists():
                raise LeftOut(f"{image}: the image is not on this machine.")
            here = {**about, "image": str(image), "height": size[0], "width": size[1]}
            yield {**here, "role": "image", "best": " ".join(told.get("best", ()))}
            truth = [note for note in store.annotations(told["image_id"]) if not note["iscrowd"]]
            for role, records in {"truth": truth, "teacher": told["teacher"], "student": told["student"]}.items():
                for record in records:
                    mask = pixels.shape(pixels.decode(record["segmentation"], size))["segmentation"]["counts"]
                    yield {**here, **record, "role": role, "category": names[record["category_id"]], "counts": mask}
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: not what `pais-bench predict` writes ({error}); predict again") from error


def _opened(path: str) -> Any:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error}); draw where the data set's images are") from error


def _paint(
    figure: Figure, points: pd.DataFrame, shown: dict[str, Any], methods: list[str], ratios: list[float]
) -> None:
    columns = [("truth", methods[0]), *((role, name) for name in methods for role in ("teacher", "student"))]
    panels = figure.subplots(len(shown), len(columns), squeeze=False, gridspec_kw={"height_ratios": ratios})
    categories = sorted(set(points.loc[points["role"] != "image", "category"]))
    colours = {name: CLASSES[index % len(CLASSES)] for index, name in enumerate(categories)}
    for row, (path, image) in enumerate(shown.items()):
        for column, (role, method) in enumerate(columns):
            axes = panels[row, column]
            here = points[(points["image"] == path) & (points["role"] == role) & (points["method"] == method)]
            _panel(axes, image, here, colours)
            if row == 0:
                axes.set_title("truth" if role == "truth" else f"{method}\n{_called(points, method, role)}", fontsize=8)


def _called(points: pd.DataFrame, method: str, role: str) -> str:
    """Give the head of a column: teacher or student, and whether its weights are those of the best evaluation."""
    best = points.loc[(points["role"] == "image") & (points["method"] == method), "best"]
    return f"{role}, best" if role in " ".join(best).split() else role


def _panel(axes: Axes, image: Any, masks: pd.DataFrame, colours: dict[str, str]) -> None:
    size = image.shape[:2]
    # Paler pixels let the colours of the masks stand out.
    canvas = 0.25 + 0.75 * image
    decoded = [pixels.decode({"size": list(size), "counts": counts.encode()}, size) for counts in masks["counts"]]
    for mask, category in zip(decoded, masks["category"], strict=True):
        canvas[mask] = 0.45 * canvas[mask] + 0.55 * np.array(to_rgb(colours[category]))
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    named: list[tuple[float, float]] = []
    for number, (mask, (_, row)) in enumerate(zip(decoded, masks.iterrows(), strict=True)):
        if not mask.any():
            continue
        axes.contour(mask, [0.5], colors=[colours[row["category"]]], linewidths=0.8)
        if number < NAMED:
            x, y = _place(mask, named)
            named.append((x, y))
            outline = [effects.withStroke(linewidth=1.2, foreground="white")]
            look: Any = {"ha": "center", "va": "center", "fontsize": 5, "linespacing": 0.95}
            axes.text(x, y, _told(row), path_effects=outline, **look)


def _place(mask: Any, named: list[tuple[float, float]]) -> tuple[float, float]:
    """Give where the name of a mask stands, x y px: at its centre, or below the names that would be hidden there."""
    width = mask.shape[1]
    y, x = (float(places.mean()) for places in np.nonzero(mask))
    x = float(np.clip(x, 0.15 * width, 0.85 * width))
    # A name is about 0.3 of a panel wide, and its two lines 0.09 of it high.
    for _ in named:
        hidden = [below for beside, below in named if abs(x - beside) < 0.3 * width and abs(y - below) < 0.09 * width]
        y = max(hidden) + 0.09 * width if hidden else y
    return x, y


def _told(row: pd.Series) -> str:
    """Write the class, and what a mask counts: two weights of a pseudo-label, else its score."""
    if not np.isnan(row["class_weight"]):
        return f"{row['category']}\n{row['class_weight']:.2f} | {row['mask_weight']:.2f}"
    return str(row["category"]) if np.isnan(row["score"]) else f"{row['category']}\n{row['score']:.2f}"
