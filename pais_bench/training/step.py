"""Do one training step: EMA, detections in weak views, weights, strong views, losses, one weighted sum, backward.

What depends on the whole step (loss normalisers, padding, random draws) does not depend on ranks and micro-batches, so
that any number of them takes the same step.
"""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench.data.loader import split_batch
from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase
from pais_bench.study.run import Run
from pais_bench.training.distributed import any_rank, max_view_sizes, step_normalizers
from pais_bench.training.models import Models
from pais_bench.training.optim import ema_momentum, set_learning_rate, update_teacher
from pais_bench.training.pseudo_labels import assign_weights, detect, project_to_strong_views
from pais_bench.training.record import StepRecord, describe_non_finite
from pais_bench.training.student import StudentInput, labelled_stream, unlabelled_stream
from pais_bench.types import Batch, Losses, Targets


def train_step(
    run: Run, method: MethodBase, models: Models, batch: Batch, fabric: Fabric, micro_batches: int = 1
) -> StepRecord:
    """Update teacher and student once; raise BenchError on a loss that is not finite."""
    torch.manual_seed(run.derive_seed(batch.step))
    lr = set_learning_rate(models.optimizer, run.training, batch.step)
    momentum = ema_momentum(batch.step, run.training.ema_decay)
    update_teacher(models.teacher, models.student, momentum)
    teacher = models.teacher_at(batch.step, method)
    pad_labelled, pad_weak, pad_strong = max_view_sizes(batch, fabric.device)

    inputs: list[StudentInput] = []
    pseudo_labels: list[Targets] = []
    for part in split_batch(batch, micro_batches):
        streams = {"labelled": labelled_stream(part.labelled, fabric.device, pad_labelled)}
        if part.unlabelled:
            weak = [image.weak.image.to(fabric.device) for image in part.unlabelled]
            detections = detect(teacher, weak, pad_weak, fabric)
            targets = assign_weights(method, teacher, weak, detections, part.unlabelled, pad_weak, fabric)
            strong = project_to_strong_views(targets, part.unlabelled)
            streams["unlabelled"] = unlabelled_stream(part.unlabelled, strong, fabric.device, pad_strong)
            pseudo_labels += targets
        inputs.append(StudentInput(streams))

    losses: list[dict[str, Losses]] = []
    for part_input, normalizer in zip(inputs, step_normalizers(models.losses, inputs, fabric), strict=True):
        with fabric.no_backward_sync(models.rank_losses, enabled=len(losses) + 1 < micro_batches):
            terms = models.rank_losses(part_input, normalizer)
            total = weighted_total(terms, method)
            if any_rank(fabric, not torch.isfinite(total)):
                raise BenchError(describe_non_finite(terms, batch, run))
            fabric.backward(total / micro_batches)
        losses.append({stream: {term: loss.detach() for term, loss in terms[stream].items()} for stream in terms})
    if run.training.grad_clip is not None:
        fabric.clip_gradients(models.rank_losses, models.optimizer, max_norm=run.training.grad_clip)
    models.optimizer.step()
    models.optimizer.zero_grad()
    return StepRecord(batch, losses, pseudo_labels, lr, momentum)


def weighted_total(losses: dict[str, Losses], method: MethodBase) -> Tensor:
    """Return the sum of all losses; those of unlabelled images count unlabelled_weight times their term's weight."""
    total: Tensor | float = 0.0
    for stream, terms in losses.items():
        for term, loss in terms.items():
            weight = 1.0 if stream == "labelled" else method.unlabelled_weight * method.term_weights.get(term, 1.0)
            if weight:  # a term of weight 0 takes no part in the backward pass
                total = total + weight * loss
    return torch.as_tensor(total)
