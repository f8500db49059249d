"""Do one training step: EMA, detections in weak views, weights, strong views, losses, one weighted sum, backward.

What depends on the whole step (loss normalisers, padding, random draws) does not depend on ranks and micro-batches, so
that any number of them takes the same step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench.data.loader import split_batch
from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import sum_over_ranks
from pais_bench.layers.seeding import seed_sampling
from pais_bench.methods.base import MethodBase
from pais_bench.study.run import Run
from pais_bench.training.distributed import PendingFlags, max_view_sizes, step_normalizers
from pais_bench.training.method_checks import describe_invalid_weights, weights_are_invalid
from pais_bench.training.mixing import mix_views
from pais_bench.training.models import Models
from pais_bench.training.optim import ema_momentum, set_learning_rate, update_teacher
from pais_bench.training.pseudo_labels import (
    assign_weights,
    detect,
    merge_stuff,
    progress_at,
    project_to_strong_views,
    refine,
)
from pais_bench.training.record import StepRecord, describe_non_finite
from pais_bench.training.student import StudentInput, labelled_stream, normalize_mask_weights, unlabelled_stream
from pais_bench.types import Batch, Losses, Targets


def train_step(
    run: Run,
    method: MethodBase,
    models: Models,
    batch: Batch,
    fabric: Fabric,
    micro_batches: int = 1,
    stopping: bool = False,
) -> StepRecord:
    """Update teacher and student once; raise BenchError on a loss or a weight that is not finite.

    stopping tells the other ranks that this one is to stop. The host reads only three flags from the device, after all
    work of the step is queued. After an error the weights are not to be used.
    """
    torch.manual_seed(run.derive_seed(batch.step))
    lr = set_learning_rate(models.optimizer, run.training, batch.step)
    momentum = ema_momentum(batch.step, run.training.ema_decay)
    update_teacher(models.teacher, models.student, momentum)
    teacher = models.teacher_at(batch.step - run.training.burn_in, method)
    progress = progress_at(batch.step, run.training)
    pad_labelled, pad_weak, pad_strong = max_view_sizes(batch, fabric.device)

    inputs: list[StudentInput] = []
    pseudo_labels: list[Targets] = []
    for part in split_batch(batch, micro_batches):
        streams = {"labelled": labelled_stream(part.labelled, pad_labelled)}
        if part.unlabelled:
            found, scorers = detect(method, teacher, part.unlabelled, pad_weak, fabric)
            detections = merge_stuff(refine(method, found, part.unlabelled, progress, fabric), models.stuff)
            targets = assign_weights(method, detections, scorers, part.unlabelled, fabric)
            strong = project_to_strong_views(targets, part.unlabelled)
            images, mixed = mix_views(part.unlabelled, strong, run.training.unlabelled_mix, models.stuff)
            streams["unlabelled"] = unlabelled_stream(images, mixed, pad_strong)
            if not method.learns_held_out_labels:
                pseudo_labels += targets
        inputs.append(StudentInput(streams))
    seed_sampling(fabric.device, run.derive_seed(batch.step))  # hooks may have drawn: the same on all ranks again
    if pseudo_labels:
        method.end_step(sum_over_ranks)
        if method.normalizes_mask_weights:
            normalize_mask_weights([part.streams["unlabelled"] for part in inputs])

    updates = models.updates
    watched = [weights_are_invalid(pseudo_labels), stopping]
    losses, flags = _update_student(run, method, models, inputs, fabric, watched)
    diverged, invalid, stopping = flags.read()
    if invalid:
        raise BenchError(describe_invalid_weights(method, pseudo_labels, batch))
    if diverged:
        totals = torch.stack([weighted_total(part, method) for part in losses])
        raise BenchError(describe_non_finite(losses, totals, batch, run))
    return StepRecord(batch, losses, pseudo_labels, lr, momentum, models.updates == updates, stopping)


def _update_student(
    run: Run,
    method: MethodBase,
    models: Models,
    inputs: Sequence[StudentInput],
    fabric: Fabric,
    watched: Sequence[Tensor | bool],
) -> tuple[list[dict[str, Losses]], PendingFlags]:
    """Do forward and backward passes and the optimiser's step; return the losses of each micro-batch.

    The flags are whether a loss is not finite, and those that are watched. Their copy to the host is queued before the
    last backward pass.
    """
    losses: list[dict[str, Losses]] = []
    finite: list[Tensor] = []
    for part, normalizer in zip(inputs, step_normalizers(models.losses, inputs, fabric), strict=True):
        last = len(losses) + 1 == len(inputs)
        with fabric.no_backward_sync(models.rank_losses, enabled=not last):
            terms = models.rank_losses(part, normalizer)
            total = weighted_total(terms, method)
            losses.append({stream: {term: loss.detach() for term, loss in terms[stream].items()} for stream in terms})
            finite.append(torch.isfinite(total.detach()))
            if last:
                flags = PendingFlags(fabric.device, [~torch.stack(finite).all(), *watched])
            fabric.backward(total / len(inputs))
    if run.training.grad_clip is not None:
        max_norm = run.training.grad_clip
        fabric.clip_gradients(models.rank_losses, models.optimizer, max_norm=max_norm, error_if_nonfinite=False)
    models.optimizer.step()
    models.optimizer.zero_grad()
    return losses, flags


def weighted_total(losses: dict[str, Losses], method: MethodBase) -> Tensor:
    """Return the sum of all losses; those of unlabelled images count unlabelled_weight times their term's weight."""
    total: Tensor | float = 0.0
    for stream, terms in losses.items():
        for term, loss in terms.items():
            weight = 1.0 if stream == "labelled" else method.unlabelled_weight * method.term_weights.get(term, 1.0)
            if weight:  # a term of weight 0 takes no part in the backward pass
                total = total + weight * loss
    return torch.as_tensor(total)
