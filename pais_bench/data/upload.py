"""Copy batches to a CUDA device one step ahead of the training, on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pais_bench.data.packed import PackedBatch
from pais_bench.types import Batch


def upload_ahead(batches: Iterable[PackedBatch], device: torch.device) -> Iterator[Batch]:
    """Yield batches, pinned ones, on a CUDA device; while one is used, the next is copied and its views are made."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ready: tuple[Batch, torch.cuda.Event] | None = None
    for packed in batches:
        with torch.cuda.stream(stream):
            following = packed.unpack(device), stream.record_event()
        if ready is not None:
            yield _hand_over(*ready, device)
        ready = following
    if ready is not None:
        yield _hand_over(*ready, device)


def _hand_over(batch: Batch, event: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the device's current stream wait for a batch, and keep its memory until that stream is done with it."""
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for tensor in _tensors(batch):
        tensor.record_stream(current)
    return batch


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for labelled in batch.labelled:
        yield labelled.view.image
        yield from vars(labelled.instances).values()
    for unlabelled in batch.unlabelled:
        yield unlabelled.weak.image
        yield unlabelled.strong.image
