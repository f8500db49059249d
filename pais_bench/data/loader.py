"""Load the batch of any step: every draw is a function of (seed, position in the stream, image).

No state is kept between steps, so the number of loader workers changes nothing, a run resumes at any step, and the
ranks' shares of a batch are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader, Dataset

from pais_bench import geometry
from pais_bench.annotations.store import Store
from pais_bench.data import augment
from pais_bench.data.read import read_image, read_instances
from pais_bench.errors import BenchError
from pais_bench.splits.split import Split
from pais_bench.study.run import Run, Training
from pais_bench.types import Batch, Instances, Labelled, Unlabelled, View

LABELLED, UNLABELLED = 0, 1


class BatchDataset(Dataset[Batch]):
    """Map a step to the batch of one rank: its share of the total batch sizes; labelled images alone in the burn-in.

    The label noise of a split changes the targets of labelled images, and nothing else. extra is a store whose images
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
        labelled, self.extra = set(split.ids), extra
        unlabelled = tuple(image_id for image_id in store.image_ids if image_id not in labelled)
        self.unlabelled_in_train = len(unlabelled)
        check_batch_sizes(run.training, world)
        self.pools = split.ids, unlabelled + (extra.image_ids if extra else ())

    def __getitem__(self, step: int) -> Batch:
        training = self.run.training
        labelled = self._positions(step, training.labelled_batch_size)
        hears_teacher = self.pools[UNLABELLED] and step >= training.burn_in
        unlabelled = self._positions(step, training.unlabelled_batch_size) if hears_teacher else []
        logged = (step + 1) % training.log_every == 0 or step + 1 == training.steps
        return Batch(
            step,
            [self._labelled(step, position) for position in labelled],
            [self._unlabelled(step, position, logged) for position in unlabelled],
        )

    def loader(self, start: int, workers: int, unlabelled: bool) -> Iterator[Batch]:
        """Iterate from step start to the last; leave out the unlabelled images if the method does not use them."""
        if not unlabelled:
            self.pools = self.pools[LABELLED], ()
        steps = range(start, self.run.training.steps)
        return _raise_errors(DataLoader(_CatchErrors(self), batch_size=None, sampler=steps, num_workers=workers))

    def unlabelled_sample(self, count: int) -> Iterator[View]:
        """Yield test views of at most count unlabelled images, evenly spread: always the same ones."""
        pool = self.pools[UNLABELLED]
        for index in range(0, len(pool), max(1, len(pool) // count))[:count]:
            yield augment.test(read_image(self._store_of(UNLABELLED, index), pool[index]), self.run.input)

    def labels(self) -> list[Instances]:
        """Return the ground truth of every labelled image, in its original pixels."""
        return [read_instances(self.store, image_id) for image_id in self.pools[LABELLED]]

    def _positions(self, step: int, size: int) -> list[int]:
        return list(range(step * size + self.rank, (step + 1) * size, self.world))

    def _store_of(self, kind: int, index: int) -> Store:
        """Return the store that holds the image at an index of a pool."""
        return self.extra if kind == UNLABELLED and index >= self.unlabelled_in_train and self.extra else self.store

    def _draw(self, kind: int, position: int) -> tuple[Store, int, np.random.Generator]:
        """Return store and image at a position of a stream, each epoch in a new order, and its views' generator."""
        pool = self.pools[kind]
        epoch, turn = divmod(position, len(pool))
        index = int(_order(self.run.seed, kind, epoch, len(pool))[turn])
        rng = np.random.default_rng([self.run.seed, kind, position, pool[index]])
        return self._store_of(kind, index), pool[index], rng

    def _labelled(self, step: int, position: int) -> Labelled:
        store, image_id, rng = self._draw(LABELLED, position)
        view = augment.labelled(read_image(store, image_id), self.run.input, rng)
        instances, _ = geometry.project(read_instances(store, image_id, self.split), view.matrix, view.size)
        return Labelled(image_id, view, instances, self.run.derive_seed(step, image_id))

    def _unlabelled(self, step: int, position: int, logged: bool) -> Unlabelled:
        store, image_id, rng = self._draw(UNLABELLED, position)
        image, seed = read_image(store, image_id), self.run.derive_seed(step, image_id)
        weak, strong = augment.weak(image, self.run.input, rng), augment.strong(image, self.run.input, rng)
        if store is self.extra or not logged:
            return Unlabelled(image_id, weak, strong, None, seed)
        ground_truth, _ = geometry.project(read_instances(store, image_id), weak.matrix, weak.size)
        return Unlabelled(image_id, weak, strong, ground_truth, seed)


def check_batch_sizes(training: Training, devices: int, micro_batches: int = 1) -> None:
    """Raise BenchError where devices, each with micro-batches, cannot share the batches of a training equally."""
    for size in (training.labelled_batch_size, training.unlabelled_batch_size):
        if size % (devices * micro_batches):
            shared = f"{devices} devices" + (f" in {micro_batches} micro-batches each" if micro_batches > 1 else "")
            raise BenchError(f"a batch of {size} images cannot be shared by {shared}; use a divisor of it")


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into micro-batches of equal size."""
    labelled, unlabelled = len(batch.labelled) // count, len(batch.unlabelled) // count
    return [
        Batch(
            batch.step,
            batch.labelled[i * labelled : (i + 1) * labelled],
            batch.unlabelled[i * unlabelled : (i + 1) * unlabelled],
        )
        for i in range(count)
    ]


class _CatchErrors(Dataset[Batch | BenchError]):
    """Return an error instead of raising it: a loader process would wrap it in its own traceback."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> Batch | BenchError:
        try:
            return self.dataset[step]
        except BenchError as error:
            return error


def _raise_errors(batches: Iterable[Batch | BenchError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, BenchError):
            raise batch
        yield batch


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, kind, epoch]).permutation(size)
