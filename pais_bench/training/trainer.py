"""Train a run: the loop over steps, with evaluations, checkpoints, the log and an exact resume.

Every random draw is a function of (seed, step, image), so a run that was killed continues as if it had not been.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.data.loader import BatchDataset, check_batch_sizes
from pais_bench.methods.base import MethodBase
from pais_bench.splits.split import Split
from pais_bench.study.run import Run
from pais_bench.training.checkpoint import BestCheckpoints, previous, read_checkpoint, read_newest, write_checkpoint
from pais_bench.training.distributed import any_rank
from pais_bench.training.log import LogWriter
from pais_bench.training.models import build_models
from pais_bench.training.predict import Validation
from pais_bench.training.preemption import CONTINUE, Interrupted
from pais_bench.training.pseudo_labels import load_pretrained_teacher, require_box_scorer
from pais_bench.training.step import train_step

Progress = Callable[[dict[str, Any]], None]


class Trainer:
    """Hold everything of one run that a checkpoint holds: models, optimiser, step."""

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
    ) -> None:
        """Build or resume a run; results is the folder below which the run of its pretrained teacher lies.

        best names the models (teacher, student) whose weights at their best evaluation are kept beside the last. guard
        is called before anything is written that another process could have written meanwhile. micro_batches is the
        number of parts that a device computes its share of a batch in, one after the other.
        """
        self.run, self.folder, self.fabric, self.micro_batches = run, folder, fabric, micro_batches
        self.validation = Validation(run, stores["val"])
        check_batch_sizes(run.training, fabric.world_size, micro_batches)
        rank, extra = fabric.global_rank, stores.get("unlabelled")
        self.dataset = BatchDataset(run, stores["train"], split, rank, fabric.world_size, extra)
        plugin = plugins.load("methods", run.method.name)
        self.method: MethodBase = plugin.Method(plugin.Options(**run.method.options))
        num_classes = len(stores["val"].categories)
        self.models = build_models(run, num_classes, fabric, micro_batches)
        require_box_scorer(run, self.method, self.models.teacher)
        self.models.pretrained_teacher = load_pretrained_teacher(
            run, self.method, num_classes, self.dataset, results, fabric
        )
        self.step, self.seconds, self.stopping = 0, 0.0, False
        self.log, self.best = LogWriter(folder / "log.jsonl"), BestCheckpoints(folder, best)
        self.checkpoint, self.guard = folder / "checkpoint.pt", guard
        self.fault = self._resume()

    def fit(self, workers: int = 0, progress: Progress = lambda line: None) -> None:
        """Train to the last step; each logged line also goes to progress.

        Raises Interrupted after saving, when `stopping` was set from outside (SIGTERM), and BenchError on a loss that
        is not finite.
        """
        training, fabric = self.run.training, self.fabric
        if self.step and not any_rank(fabric, fabric.is_global_zero and self.log.holds("evaluation", self.step)):
            self._evaluate_if_due(progress)
        for batch in self.dataset.loader(self.step, workers, self.method.uses_unlabelled):
            begin = time.monotonic()
            record = train_step(self.run, self.method, self.models, batch, fabric, self.micro_batches)
            self.seconds += time.monotonic() - begin
            self.step += 1
            last = self.step == training.steps
            if self.step % training.log_every == 0 or last:
                times = {"event": "step", "step": self.step, "seconds": round(self.seconds, 3)}
                self._write({**times, **record.log_line(fabric)}, progress)
            self._evaluate_if_due(progress)
            stopping = any_rank(fabric, self.stopping)
            if self.step % training.checkpoint_every == 0 or last or stopping:
                self._save()
            if stopping and not last:
                raise self._interrupted()
        if fabric.is_global_zero:
            previous(self.checkpoint).unlink(missing_ok=True)

    def _evaluate_if_due(self, progress: Progress) -> None:
        """Evaluate if this step is due; a run that is stopped meanwhile saves, and evaluates when it continues."""
        training = self.run.training
        if self.step % training.evaluate_every and self.step != training.steps:
            return
        line: dict[str, Any] | None = None
        with contextlib.suppress(_EvaluationStopped):
            line = self._evaluate()
        if any_rank(self.fabric, line is None):
            self._save()
            raise self._interrupted()
        evaluation = {"event": "evaluation", "step": self.step, **(line or {})}
        self.best.update(evaluation, {"teacher": self.models.teacher, "student": self.models.student})
        self._write(evaluation, progress)

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate student and teacher on the validation set, on the first rank."""
        training = self.run.training
        images_seen = self.step * training.labelled_batch_size
        if self.method.uses_unlabelled:
            images_seen += max(0, self.step - training.burn_in) * training.unlabelled_batch_size
        line: dict[str, Any] = {"seconds": round(self.seconds, 3), "images_seen": images_seen}
        if self.fabric.is_global_zero:
            with self.fabric.autocast():
                for name in ("student", "teacher"):
                    network = getattr(self.models, name)
                    line[name] = self.validation.evaluate(network, self.fabric.device, self._stop_evaluation)
        return line

    def _stop_evaluation(self, done: int) -> None:
        if self.stopping:
            raise _EvaluationStopped

    def _interrupted(self) -> Interrupted:
        steps = self.run.training.steps
        return Interrupted(f"saved and stopped after step {self.step} of {steps}; {CONTINUE}")

    def _write(self, line: dict[str, Any], progress: Progress) -> None:
        if self.fabric.is_global_zero:
            self.log.append(line)
            progress(line)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            state = {
                "digest": self.run.digest,
                "step": self.step,
                "seconds": self.seconds,
                "student": self.models.student.state_dict(),
                "teacher": self.models.teacher.state_dict(),
                "optimizer": self.models.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            self.guard()
            self.log.sync()
            self.best.write(self.run.digest)
            write_checkpoint(self.checkpoint, state)
        self.fabric.barrier()

    def _resume(self) -> str:
        """Continue from the run's newest whole checkpoint, if it has one; the log forgets what came after it.

        Returns what is wrong with a newer checkpoint, or nothing.
        """
        state, fault = read_newest(self.checkpoint, self.run)
        if state is not None:
            self.models.student.load_state_dict(state["student"])
            self.models.teacher.load_state_dict(state["teacher"])
            self.models.optimizer.load_state_dict(state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.step, self.seconds = state["step"], state["seconds"]
            evaluated = self.step > self.run.training.evaluate_every
            self.best.resume(self.step, evaluated, lambda path: read_checkpoint(path, self.run))
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            self.log.keep_until(self.step)
        return fault


class _EvaluationStopped(Exception):
    """Leave an evaluation that takes too long to wait for."""
