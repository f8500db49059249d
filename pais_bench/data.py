"""Which images does step k see? Two endless streams whose every draw is a function of (seed, position, image).

No state is kept between steps, so the number of loader workers changes nothing, a run resumes at any step, and the
ranks' shares of a batch are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pais_bench import augment, corruptions, geometry
from pais_bench.config import Run, Training
from pais_bench.pixels import decode
from pais_bench.splits import Split
from pais_bench.store import Store
from pais_bench.types import Batch, BenchError, Instances, Labelled, Unlabelled, View

LABELLED, UNLABELLED = 0, 1


class Stream(Dataset[Batch]):
    """Give the batch of any step, for one rank: its share of the total batch sizes; in the burn-in, labels only.

    The corruption of a split changes what the labelled images teach, and nothing else. extra is a store whose images
    are all unlabelled, beside those of the training set that the split does not label.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        split: Split,
        rank: int = 0,
        world: int = 1,
        extra: Store | None = None,
    ) -> None:
        self.run, self.store, self.rank, self.world, self.split = run, store, rank, world, split
        chosen, self.extra = set(split.ids), extra
        unlabelled = tuple(i for i in store.image_ids if i not in chosen)
        self.own = len(unlabelled)
        check_batch(run.training, world)
        self.pools = split.ids, unlabelled + (extra.image_ids if extra else ())

    def __getitem__(self, step: int) -> Batch:
        training = self.run.training
        labelled = self._positions(step, training.labelled_batch)
        wanted = self.pools[UNLABELLED] and step >= training.burn_in
        unlabelled = self._positions(step, training.unlabelled_batch) if wanted else []
        logged = (step + 1) % training.log_every == 0 or step + 1 == training.steps
        return Batch(step, [self._labelled(p) for p in labelled], [self._unlabelled(p, logged) for p in unlabelled])

    def loader(self, start: int, workers: int, unlabelled: bool) -> Iterator[Batch]:
        """Iterate from step start to the last; leave out the unlabelled stream if it is not wanted."""
        if not unlabelled:
            self.pools = self.pools[LABELLED], ()
        steps = range(start, self.run.training.steps)
        return _raised(DataLoader(_Told(self), batch_size=None, sampler=steps, num_workers=workers))

    def unlabelled_sample(self, count: int) -> Iterator[View]:
        """Give test views of at most count unlabelled images, evenly spread: always the same ones."""
        pool = self.pools[UNLABELLED]
        for place in range(0, len(pool), max(1, len(pool) // count))[:count]:
            yield augment.test(read_stored(self._home(UNLABELLED, place), pool[place]), self.run.views)

    def labels(self) -> list[Instances]:
        """Give the truth of every labelled image, in its original pixels."""
        return [read_truth(self.store, image_id) for image_id in self.pools[LABELLED]]

    def _positions(self, step: int, size: int) -> list[int]:
        return list(range(step * size + self.rank, (step + 1) * size, self.world))

    def _home(self, kind: int, place: int) -> Store:
        """Give the store that holds the image at a place of a pool."""
        return self.extra if kind == UNLABELLED and place >= self.own and self.extra else self.store

    def _draw(self, kind: int, position: int) -> tuple[Store, int, np.random.Generator]:
        """Give the store and image at a position of a stream, each epoch in a new order, and its views' generator."""
        pool = self.pools[kind]
        epoch, turn = divmod(position, len(pool))
        place = int(_order(self.run.seed, kind, epoch, len(pool))[turn])
        rng = np.random.default_rng([self.run.seed, kind, position, pool[place]])
        return self._home(kind, place), pool[place], rng

    def _labelled(self, position: int) -> Labelled:
        store, image_id, rng = self._draw(LABELLED, position)
        view = augment.labelled(read_stored(store, image_id), self.run.views, rng)
        truth, _ = geometry.project(read_truth(store, image_id, self.split), view.matrix, view.size)
        return Labelled(image_id, view, truth)

    def _unlabelled(self, position: int, logged: bool) -> Unlabelled:
        store, image_id, rng = self._draw(UNLABELLED, position)
        image = read_stored(store, image_id)
        weak, strong = augment.weak(image, self.run.views, rng), augment.strong(image, self.run.views, rng)
        if store is self.extra or not logged:
            return Unlabelled(image_id, weak, strong, truth=None)
        truth, _ = geometry.project(read_truth(store, image_id), weak.matrix, weak.size)
        return Unlabelled(image_id, weak, strong, truth)


def check_batch(training: Training, devices: int, parts: int = 1) -> None:
    """Raise BenchError where devices, each in parts, cannot share the batches of a training equally."""
    for size in (training.labelled_batch, training.unlabelled_batch):
        if size % (devices * parts):
            shared = f"{devices} devices" + (f" in {parts} parts each" if parts > 1 else "")
            raise BenchError(f"a batch of {size} images cannot be shared by {shared}; use a divisor of it")


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into parts of equal size."""
    labelled, unlabelled = len(batch.labelled) // count, len(batch.unlabelled) // count
    return [
        Batch(
            batch.step,
            batch.labelled[i * labelled : (i + 1) * labelled],
            batch.unlabelled[i * unlabelled : (i + 1) * unlabelled],
        )
        for i in range(count)
    ]


class _Told(Dataset[Batch | BenchError]):
    """Give a fault instead of raising it: a loader process would wrap it in its own traceback."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, step: int) -> Batch | BenchError:
        try:
            return self.stream[step]
        except BenchError as error:
            return error


def _raised(batches: Iterable[Batch | BenchError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, BenchError):
            raise batch
        yield batch


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, kind, epoch]).permutation(size)


def read_image(path: Path) -> Tensor:
    """Read an image file as RGB u8[3,H,W]; raise BenchError that names the file if it cannot be read."""
    try:
        with Image.open(path) as file:
            return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise BenchError(f"{path}: unreadable image ({error}); replace the file") from error


def read_stored(store: Store, image_id: int) -> Tensor:
    """Read an image of a store; raise BenchError where the file's size is not the one of its record."""
    image, (height, width) = read_image(store.path(image_id)), store.size(image_id)
    if tuple(image.shape[-2:]) != (height, width):
        found = f"{image.shape[-1]} x {image.shape[-2]}"
        raise BenchError(
            f"{store.path(image_id)}: {found} pixels, but image {image_id} is {width} x {height} in the annotations; "
            f"replace the file"
        )
    return image


def read_truth(store: Store, image_id: int, split: Split | None = None) -> Instances:
    """Give an image's instances in its original pixels, as a split spoils them; without crowds and empty masks."""
    size, notes = store.size(image_id), store.annotations(image_id)
    if split is not None:
        notes = corruptions.apply(split, notes, size)
    notes = [note for note in notes if not note.get("iscrowd", 0)]
    masks = [decode(note["segmentation"], size) for note in notes]
    filled = [i for i, mask in enumerate(masks) if mask.any()]
    pixels = np.stack([masks[i] for i in filled]) if filled else np.zeros((0, *size), dtype=bool)
    stacked = torch.from_numpy(pixels)
    labels = torch.tensor([store.label_of[notes[i]["category_id"]] for i in filled], dtype=torch.int64)
    one = torch.ones(len(filled))
    return Instances(geometry.boxes_of(stacked), labels, stacked, scores=one, quality=one)
