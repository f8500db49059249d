"""Copy batches to a CUDA device one step ahead of the training, on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

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
    for tensor in tensors_on(device, batch):
        tensor.record_stream(current)
    return batch


def tensors_on(device: torch.device, value: object) -> Iterator[Tensor]:
    """Yield every tensor on a device that a value of pais_bench.types holds, however deep."""
    if isinstance(value, Tensor):
        if value.device.type == device.type:
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_on(device, item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_on(device, getattr(value, field.name))
