"""Train a run: the loop over steps, with evaluations, checkpoints, the log and an exact resume.

Every random draw is a function of (seed, step, image), so a run that was killed continues as if it had not been.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from pais_bench import plugins, provenance
from pais_bench.annotations.store import Store
from pais_bench.data.loader import BatchDataset
from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase
from pais_bench.runs.files import CHECKPOINT, LOG
from pais_bench.runs.job_log import CONTINUE
from pais_bench.splits.split import Split
from pais_bench.study.resources import ViewsOn, check_batch_sizes
from pais_bench.study.run import Run
from pais_bench.training.checkpoint import BestCheckpoints, previous, read_checkpoint, read_newest, write_checkpoint
from pais_bench.training.distributed import any_rank
from pais_bench.training.log import LogWriter
from pais_bench.training.method_checks import checked_state
from pais_bench.training.models import build_models
from pais_bench.training.preemption import Interrupted
from pais_bench.training.pseudo_labels import load_pretrained_teacher, prepare_method, require_functions
from pais_bench.training.record import REMEDY
from pais_bench.training.step import train_step
from pais_bench.training.validation import Validation

LineCallback = Callable[[dict[str, Any]], None]
"""Takes a line of the log."""

MAX_SKIPPED = 50
"""Steps in a row whose gradients overflow before a training fails: each halves the scale, 2^16 at first."""


class Trainer:
    """Hold everything of one run that a checkpoint holds: models, optimiser, state of the method, step."""

    def __init__(
        self,
        run: Run,
        stores: Mapping[str, Store],
        split: Split,
        folder: Path,
        fabric: Fabric,
        results: Path = Path(),
        best: Sequence[str] = (),
        guard: Callable[[], None] = lambda: None,
        micro_batches: int = 1,
        views_on: ViewsOn = "auto",
        burn_in: str = "",
    ) -> None:
        """Build or resume a run; results is the folder below which the run of its pretrained teacher lies.

        best names the models (teacher, student) whose weights at their best evaluation are kept beside the last. guard
        is called before anything is written that another process could have written meanwhile. micro_batches is the
        number of parts that a device computes its share of a batch in, one after the other. views_on: where its views
        are made. burn_in: the folder below results of the trained burn-in that a new run begins with.
        """
        self.run, self.folder, self.fabric = run, folder, fabric
        self.micro_batches, self.views_on = micro_batches, views_on
        self.validation = Validation(run, stores["val"])
        if best and not self.validation.has_objects:
            raise BenchError(
                f"{run.folder}: none of the {len(self.validation.image_ids)} images that it is evaluated on has an "
                f"object, so that no checkpoint is the best; raise training.evaluate_images, or report the last one"
            )
        check_batch_sizes(run.training, fabric.world_size, micro_batches)
        rank, extra = fabric.global_rank, stores.get("unlabelled")
        self.method: MethodBase = plugins.build("methods", run.method.name, run.method.options)
        self.dataset = BatchDataset(
            run,
            stores["train"],
            split,
            rank,
            fabric.world_size,
            extra,
            uses_unlabelled=self.method.uses_unlabelled,
            held_out_labels=self.method.learns_held_out_labels,
        )
        isthing = stores["val"].isthing
        self.models = build_models(run, isthing, fabric, micro_batches)
        require_functions(run, self.method, self.models.teacher)
        self.models.pretrained_teacher = load_pretrained_teacher(run, isthing, results, fabric)
        class_names = [name for _, name in stores["val"].categories]
        prepare_method(self.method, self.models.pretrained_teacher, class_names, self.dataset, fabric)
        checked_state(self.method)  # now, not at the first checkpoint
        self.step, self.seconds, self.stopping = 0, 0.0, False
        self.skipped_steps, self.skipped_in_a_row = 0, 0
        self.workers, self.results, self.begun_with = 0, results, burn_in
        self.trained_by: dict[str, Any] = {}
        # Now, as the files on the disk may be of another commit by the end.
        self.source = {"commit": provenance.commit(), "versions": provenance.versions(), "earlier_commits": []}
        self.log, self.best = LogWriter(folder / LOG), BestCheckpoints(folder, best)
        self.checkpoint, self.guard = folder / CHECKPOINT, guard
        self.fault = self._resume()

    def fit(self, workers: int = 0, progress: LineCallback = lambda line: None) -> None:
        """Train to the last step; each logged line also goes to progress. workers: processes that read images.

        Raises Interrupted after saving, when `stopping` was set from outside (SIGTERM), and BenchError on a loss that
        is not finite.
        """
        training, fabric = self.run.training, self.fabric
        self.workers = workers
        evaluated = self.step == 0 or any_rank(
            fabric, fabric.is_global_zero and self.log.holds("evaluation", self.step)
        )
        if not evaluated and self._evaluate_if_due(progress):
            self._save()  # what this evaluation found best
        begin = time.monotonic()  # waiting for a batch is time of training, evaluating and saving is not
        for batch in self.dataset.loader(self.step, workers, fabric.device, self.views_on):
            record = train_step(self.run, self.method, self.models, batch, fabric, self.micro_batches, self.stopping)
            self.seconds += time.monotonic() - begin
            self.step += 1
            self._count_skipped(record.skipped)
            last = self.step == training.steps
            if self.step % training.log_every == 0 or last:
                head = {"event": "step", "step": self.step, "seconds": round(self.seconds, 3)}
                self._write({**head, "skipped_steps": self.skipped_steps, **record.log_line(fabric)}, progress)
            self._evaluate_if_due(progress)
            stopping = record.stopping or (fabric.world_size == 1 and self.stopping)
            if self.step % training.checkpoint_every == 0 or last or stopping:
                self._save()
            if stopping and not last:
                raise self._interrupted()
            begin = time.monotonic()
        if fabric.is_global_zero:
            previous(self.checkpoint).unlink(missing_ok=True)

    def describe(self) -> dict[str, Any]:
        """Return commits, versions and hardware of this process, as run.json has them of what trained."""
        device = self.fabric.device.type
        name = torch.cuda.get_device_name() if device == "cuda" else device
        hardware = provenance.hardware(name, self.fabric.world_size, torch.get_num_threads())
        if device == "cuda":
            hardware["peak_device_memory_mib"] = torch.cuda.max_memory_allocated() // 2**20
        return {**self.source, "hardware": hardware}

    def _evaluate_if_due(self, progress: LineCallback) -> bool:
        """Evaluate if this step is due, and return whether it was; a run that is stopped meanwhile saves."""
        training = self.run.training
        if self.step % training.evaluate_every and self.step != training.steps:
            return False
        self._require_finite_weights()
        line: dict[str, Any] | None = None
        with contextlib.suppress(_EvaluationStopped):
            line = self._evaluate()
        if any_rank(self.fabric, line is None):
            self._save()
            raise self._interrupted()
        evaluation = {"event": "evaluation", "step": self.step, **(line or {})}
        self.best.update(evaluation, {"teacher": self.models.teacher, "student": self.models.student})
        self._write(evaluation, progress)
        return True

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate student and teacher on the validation set; the first rank alone has their AP."""
        training = self.run.training
        images_seen = self.step * training.labelled_batch_size
        if self.dataset.has_unlabelled:
            images_seen += max(0, self.step - training.burn_in) * training.unlabelled_batch_size
        line: dict[str, Any] = {"seconds": round(self.seconds, 3), "images_seen": images_seen}
        networks = {"student": self.models.student, "teacher": self.models.teacher}
        with self.fabric.autocast():
            return line | self.validation.evaluate(networks, self.fabric, self.workers, self._stop_evaluation)

    def _stop_evaluation(self, done: int) -> None:
        """Leave the evaluation on all ranks where one is to stop."""
        if any_rank(self.fabric, self.stopping):
            raise _EvaluationStopped

    def _interrupted(self) -> Interrupted:
        steps = self.run.training.steps
        return Interrupted(f"saved and stopped after step {self.step} of {steps}; {CONTINUE}")

    def _write(self, line: dict[str, Any], progress: LineCallback) -> None:
        if self.fabric.is_global_zero:
            self.log.append(line)
            progress(line)

    def _count_skipped(self, skipped: bool) -> None:
        """Count the steps that a gradient scaler left out; raise BenchError where it finds no scale that works."""
        self.skipped_steps += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row == MAX_SKIPPED:
            raise BenchError(
                f"{self.run.folder}: gradients of the last {MAX_SKIPPED} steps overflowed, up to step {self.step - 1}, "
                f"though each halved the scale of the loss; set training.precision to bf16-mixed or 32-true"
            )

    def _require_finite_weights(self) -> None:
        """Raise BenchError where a gradient that was not finite got into the weights: nothing of them is written."""
        if not self.models.weights_are_finite():
            raise BenchError(f"{self.run.folder}: weights not finite after step {self.step - 1}; {REMEDY}")

    def _save(self) -> None:
        self._require_finite_weights()
        if self.fabric.is_global_zero:
            self.trained_by = self.describe()
            state = {
                "digest": self.run.digest,
                "trained_by": self.trained_by,
                "step": self.step,
                "seconds": self.seconds,
                "skipped_steps": self.skipped_steps,
                "begun_with": self.begun_with,
                "student": self.models.student.state_dict(),
                "teacher": self.models.teacher.state_dict(),
                "optimizer": self.models.optimizer.state_dict(),
                "method": checked_state(self.method),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            self.guard()
            self.log.sync()
            self.best.write(self.run.digest)
            write_checkpoint(self.checkpoint, state)
        self.fabric.barrier()

    def _resume(self) -> str:
        """Continue from the run's newest whole checkpoint, if it has one; the log forgets what came after it.

        Returns what is wrong with a newer checkpoint, or nothing. Raises BenchError where ranks read other ones.
        """
        state, fault = read_newest(self.checkpoint, self.run)
        if state is not None:
            self._load(state)
            self.method.load_state_dict(state["method"])
            self.begun_with, self.trained_by = state["begun_with"], state["trained_by"]
            evaluated = self.step > self.run.training.evaluate_every
            self.best.resume(self.step, evaluated, lambda path: read_checkpoint(path, self.run))
        elif self.begun_with and self.run.burn_in:
            self._take_over(self.results / self.begun_with, self.run.burn_in)
        if any_rank(self.fabric, self.step != self.fabric.broadcast(self.step)):
            raise BenchError(
                f"{self.folder}: the processes of this training begin at different steps, this one at step "
                f"{self.step}; check that all of its nodes have the same results folder, and try again"
            )
        if self.fabric.is_global_zero:
            self.log.keep_until(self.step)
            if fault:  # else the next save would put the damaged one in the place of the whole one
                os.replace(previous(self.checkpoint), self.checkpoint)
        return fault

    def _take_over(self, folder: Path, burn_in: Run) -> None:
        """Continue from the end of a trained burn-in, with its log and its best checkpoints."""
        self._load(read_checkpoint(folder / self.checkpoint.name, burn_in))
        self.best.take_over(folder, lambda path: read_checkpoint(path, burn_in))
        if self.fabric.is_global_zero:
            training = self.run.training
            every = {"step": training.log_every, "evaluation": training.evaluate_every}
            self.log.take_over(folder / self.log.path.name, every)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.models.student.load_state_dict(state["student"])
        self.models.teacher.load_state_dict(state["teacher"])
        self.models.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.seconds, self.skipped_steps = state["step"], state["seconds"], state["skipped_steps"]
        before = state["trained_by"]
        earlier = {*before["earlier_commits"], before["commit"]} - {self.source["commit"]}
        self.source["earlier_commits"] = sorted(earlier)


class _EvaluationStopped(Exception):
    """Leave an evaluation that takes too long to wait for."""
