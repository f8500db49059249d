"""Draw the labelled images of a split by its family, and apply its label noise."""

from __future__ import annotations

import math
from pathlib import Path

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError
from pais_bench.splits import label_noise
from pais_bench.splits.family import ImagePool, LabelledSet
from pais_bench.splits.split import Split, identity
from pais_bench.study.split import SplitChoice


def draw(family: str, pool: ImagePool, percent: float, fold: int, source: Path | None = None) -> LabelledSet:
    """Return the labelled ids in the order drawn.

    Raises BenchError for an unknown family, a missing or needless source, and a split without an image.
    """
    try:
        plugin = plugins.load("families", family)
    except BenchError as error:
        raise BenchError(f"split.family: {error}") from error
    if plugin.SOURCE and source is None:
        raise BenchError(f"split.source: missing; family '{family}' needs {plugin.SOURCE}")
    if source is not None and not plugin.SOURCE:
        raise BenchError(f"split.source: family '{family}' reads no file; remove the key")
    drawn: LabelledSet = plugin.draw(pool, percent, fold, source)
    if not drawn.ids:
        remedy = (
            f"the smallest percent that gives one is {_smallest_percent(drawn.pool)}"
            if drawn.pool
            else "prepare some images"
        )
        raise BenchError(f"split: {percent:g} % of a pool of {drawn.pool} images is no image; {remedy}")
    return drawn


def draw_split(store: Store, dataset: str, choice: SplitChoice, source: Path | None = None) -> Split:
    """Draw a split of the training set of a dataset."""
    drawn = draw(choice.family, ImagePool.of(store), choice.percent, choice.fold, source)
    return make_split(store, dataset, choice, drawn)


def make_split(store: Store, dataset: str, choice: SplitChoice, drawn: LabelledSet) -> Split:
    """Return the split of drawn images, with the label noise of the choice."""
    ids, noisy = sorted(drawn.ids), None
    if choice.label_noise:
        noisy = label_noise.sample_label_noise(choice.label_noise, ids, store)
        ids = noisy.ids
    split = Split(
        dataset=dataset,
        family=choice.family,
        percent=choice.percent,
        effective_percent=100 * len(ids) / drawn.pool,
        fold=choice.fold,
        pool=drawn.pool,
        note=drawn.note,
        source_sha256=drawn.source_sha256,
        label_noise=choice.label_noise,
        dropped=tuple(noisy.dropped) if noisy else None,
        flipped=noisy.flipped if noisy else None,
        ids=tuple(ids),
        sha256="",
        store=store.digest,
    )
    return split.model_copy(update={"sha256": identity(split)})


def _smallest_percent(pool: int) -> str:
    """Return the smallest percent of two digits that gives at least one image of the pool."""
    unit = 10.0 ** (math.floor(math.log10(100 / pool)) - 1)
    steps = math.floor(100 / pool / unit)
    while int(float(f"{steps * unit:.2g}") / 100.0 * pool) < 1:
        steps += 1
    return f"{steps * unit:.2g}"
