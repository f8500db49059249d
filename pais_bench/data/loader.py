"""Load the batch of any step: every draw is a function of (seed, position in the stream, image).

No state is kept between steps, so the number of loader workers changes nothing, a run resumes at any step, and the
ranks' shares of a batch are disjoint.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment, recipe
from pais_bench.data.labels import read_boxes, read_labels
from pais_bench.data.packed import PackedBatch, PackedLabelled, PackedUnlabelled, Packer
from pais_bench.data.read import read_image
from pais_bench.data.upload import upload_ahead
from pais_bench.errors import BenchError
from pais_bench.splits.split import Split, images_with_objects
from pais_bench.study.resources import ViewsOn, check_batch_sizes
from pais_bench.study.run import Run, unsigned
from pais_bench.types import Batch, Instances, View

Key = TypeVar("Key")
Packed = TypeVar("Packed")
LABELLED, UNLABELLED = 0, 1
CPU = torch.device("cpu")


def evenly_spread(length: int, count: int) -> list[int]:
    """Return at most count indices of 0..length-1, evenly spread, the first one among them."""
    chosen = min(length, count)
    return [index * length // chosen for index in range(chosen)]


class BatchDataset(Dataset[Batch]):
    """Map a step to the batch of one rank: its share of the total batch sizes; labelled images alone in the burn-in.

    The label noise of a split changes the targets of labelled images, and nothing else. With filter_empty_gt, labelled
    images without an object are in no batch. extra is a store whose images are all unlabelled, beside those of the
    training set that the split does not label. Labels are of things alone where the network learns no stuff. The labels
    of unlabelled images come with logged steps alone. With held_out_labels they come with every step, and unlabelled
    images without labels are in no batch; without uses_unlabelled no unlabelled image is.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        split: Split,
        rank: int = 0,
        world: int = 1,
        extra: Store | None = None,
        uses_unlabelled: bool = True,
        held_out_labels: bool = False,
    ) -> None:
        self.run, self.store, self.rank, self.world, self.split = run, store, rank, world, split
        self.held_out_labels = held_out_labels
        self.with_stuff = plugins.learns_stuff(f"{run.network.backend}/{run.network.name}")
        labelled, self.extra = set(split.ids), extra
        unlabelled = tuple(image_id for image_id in store.image_ids if image_id not in labelled)
        self.unlabelled_in_train = len(unlabelled)
        check_batch_sizes(run.training, world)
        learnt = images_with_objects(split, store, self.with_stuff)
        if not learnt:
            raise BenchError(
                f"{split.title}: its {len(split.ids)} labelled images have no object that network {run.network.label} "
                f"learns; choose a larger percent, another fold, or a network that learns stuff"
            )
        in_batches = learnt if run.training.filter_empty_gt else split.ids
        if extra is not None and not held_out_labels:
            unlabelled += extra.image_ids
        self.pools = in_batches, unlabelled if uses_unlabelled else ()

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step on the CPU."""
        return self.pack(step).unpack(CPU)

    def pack(self, step: int, views_on_device: bool = False) -> PackedBatch:
        """Return the batch of a step, packed: with its views, or with what the device needs to make them."""
        training, packer = self.run.training, Packer(views_on_device)
        labelled = self._positions(step, training.labelled_batch_size)
        hears_teacher = self.pools[UNLABELLED] and step >= training.burn_in
        size, together = training.unlabelled_batch_size, training.unlabelled_together
        unlabelled = self._positions(step, size, together) if hears_teacher else []
        logged = (step + 1) % training.log_every == 0 or step + 1 == training.steps
        with_labels = logged or self.held_out_labels
        packed_labelled = [self._labelled(packer, step, position) for position in labelled]
        packed_unlabelled = [self._unlabelled(packer, step, position, with_labels) for position in unlabelled]
        return PackedBatch(step, packer.buffer(), packed_labelled, packed_unlabelled)

    def loader(
        self, start: int, workers: int, device: torch.device = CPU, views_on: ViewsOn = "auto"
    ) -> Iterator[Batch]:
        """Iterate over batches on a device, from step start to the last.

        Views that the device makes have the pixels of those of the CPU.
        """
        steps, cuda = range(start, self.run.training.steps), device.type == "cuda"
        pack = partial(self.pack, views_on_device=views_on == "device" or (views_on == "auto" and cuda))
        batches = load_packed(pack, steps, workers, pin_memory=cuda)
        return upload_ahead(batches, device) if cuda else (batch.unpack(device) for batch in batches)

    @property
    def has_unlabelled(self) -> bool:
        """Return whether there are unlabelled images to learn from."""
        return bool(self.pools[UNLABELLED])

    def unlabelled_sample(self, count: int) -> Iterator[View]:
        """Yield test views of at most count unlabelled images, evenly spread: always the same ones."""
        pool = self.pools[UNLABELLED]
        for index in evenly_spread(len(pool), count):
            yield augment.test(read_image(self._store_of(UNLABELLED, index), pool[index]), self.run.input)

    def labels(self) -> list[Instances]:
        """Return the labels of every labelled image, noise included, in its original pixels; masks are bool[N,0,0]."""
        return [read_boxes(self.store, image_id, self.split, self.with_stuff) for image_id in self.split.ids]

    def _positions(self, step: int, size: int, together: int = 1) -> list[int]:
        """Return this rank's positions of a step's images: so many in a row, then as many for each other rank."""
        starts = range(step * size + self.rank * together, (step + 1) * size, self.world * together)
        return [start + offset for start in starts for offset in range(together)]

    def _store_of(self, kind: int, index: int) -> Store:
        """Return the store that holds the image at an index of a pool."""
        return self.extra if kind == UNLABELLED and index >= self.unlabelled_in_train and self.extra else self.store

    def _draw(self, kind: int, position: int) -> tuple[Store, int, np.random.Generator]:
        """Return store and image at a position of a stream, each epoch in a new order, and its views' generator."""
        pool = self.pools[kind]
        epoch, turn = divmod(position, len(pool))
        index = int(_order(self.run.seed, kind, epoch, len(pool))[turn])
        rng = np.random.default_rng(unsigned(self.run.seed, kind, position, pool[index]))
        return self._store_of(kind, index), pool[index], rng

    def _labelled(self, packer: Packer, step: int, position: int) -> PackedLabelled:
        store, image_id, rng = self._draw(LABELLED, position)
        made = recipe.labelled(store.size(image_id), self.run.input, rng)
        (view,) = packer.views(read_image(store, image_id), made)
        labels = packer.labels(read_labels(store, image_id, self.split, made, self.with_stuff))
        return PackedLabelled(image_id, view, labels, self.run.derive_seed(step, image_id))

    def _unlabelled(self, packer: Packer, step: int, position: int, with_labels: bool) -> PackedUnlabelled:
        store, image_id, rng = self._draw(UNLABELLED, position)
        size = store.size(image_id)
        weak, strong = recipe.weak(size, self.run.input, rng), recipe.strong(size, self.run.input, rng)
        weak_view, strong_view = packer.views(read_image(store, image_id), weak, strong)
        seen = with_labels and store is not self.extra
        labels = packer.labels(read_labels(store, image_id, None, weak, self.with_stuff)) if seen else None
        return PackedUnlabelled(image_id, weak_view, strong_view, labels, self.run.derive_seed(step, image_id))


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


def load_packed(pack: Callable[[Key], Packed], keys: Sequence[Key], workers: int, pin_memory: bool) -> Iterator[Packed]:
    """Yield what a function packs for each key; worker processes read ahead, and their errors are raised here."""
    packing = _CatchErrors(pack)
    loader = DataLoader(
        packing,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_obey_the_parent_alone,
    )
    for packed in loader:
        if isinstance(packed, BenchError):
            raise packed
        yield packed


def _obey_the_parent_alone(worker: int) -> None:
    """Let a loader process end at a SIGTERM of the training, as torch has it, and go on at any other.

    SLURM sends one to every process at the time limit or a preemption; the training needs its batches until it has
    saved. A handler is not told who sent a signal, but a thread that waits for it is.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_at_sigterm_of, args=(os.getppid(),), daemon=True).start()


def _end_at_sigterm_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class _CatchErrors(Dataset[Any]):
    """Return an error instead of raising it: a loader process would wrap it in its own traceback."""

    def __init__(self, pack: Callable[[Any], Any]) -> None:
        self.pack = pack

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.pack(key)
        except BenchError as error:
            return error


@lru_cache(maxsize=4)
def _order(seed: int, kind: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, kind, epoch]).permutation(size)
