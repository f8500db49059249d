"""How does a run train? One loop for every method: a student learns, a teacher is its running average.

A step:  teacher <- m teacher + (1 - m) student          [m = min(ema, 1 - 1/(t+1)), before the step; paper.md 2.1]
         targets <- method.weigh(teacher(weak view)), projected into the strong view;
                    in the first guided_steps of a method that wants it, a network trained before is the teacher
         loss    <- student(labelled views) + unlabelled_weight * student(strong views)
Every random draw is a function of (seed, step, image): a run that was killed goes on as if it had not been, and a batch
that is shared by ranks, or learnt in parts, gives the step of the whole batch.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pais_bench import inference, plugins, shares, teaching
from pais_bench.checkpoint import Best, Log, before, newest, read_checkpoint, write_checkpoint
from pais_bench.config import Run
from pais_bench.data import Stream, check_batch, parts_of
from pais_bench.diagnostics import describe
from pais_bench.interruption import Interrupted
from pais_bench.learner import Learner, Losses, Streams, not_finite
from pais_bench.schedule import build_optimizer, ema_momentum, learning_rate, update_teacher
from pais_bench.splits import Split
from pais_bench.store import Store
from pais_bench.types import Batch, BenchError, Labelled, Method, Targets, Unlabelled


class Trainer:
    """Hold everything of one run that a checkpoint holds: student, teacher, optimiser, step."""

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
        accumulate: int = 1,
    ) -> None:
        """Build or resume a run; results is where the run of its trained teacher lies, if it wants one.

        best names the models, of teacher and student, whose weights at their best evaluation are kept beside the last.
        guard is asked before anything is written that another process could have written meanwhile. accumulate is the
        number of parts that a device's share of a batch is learnt in, one after the other.
        """
        self.run, self.val, self.folder, self.fabric = run, stores["val"], folder, fabric
        self.validation = inference.Validation(run, self.val)
        extra = stores.get("unlabelled")
        self.accumulate, world = accumulate, fabric.world_size
        check_batch(run.training, world, accumulate)
        self.stream = Stream(run, stores["train"], split, fabric.global_rank, world, extra)
        plugin = plugins.load("methods", run.method.name)
        self.method: Method = plugin.Method(plugin.Options(**run.method.options))
        classes = len(self.val.categories)
        torch.manual_seed(run.seed)
        self.student: Any = inference.build_backend(run, classes).to(fabric.device)
        self.teacher: Any = copy.deepcopy(self.student).requires_grad_(False).eval()
        self._share()
        optimizer = build_optimizer(self.student, run.training)
        self.alone = Learner(self.student)
        self.learner, self.optimizer = fabric.setup(self.alone, optimizer)
        self.step, self.seconds, self.stopping, self.fault = 0, 0.0, False, ""
        self.log, self.best = Log(folder / "log.jsonl"), Best(folder, best)
        self.checkpoint, self.guard = folder / "checkpoint.pt", guard
        teaching.check_verbs(run, self.method, self.teacher)
        self.guide = teaching.trained_teacher(run, self.method, classes, self.stream, results, fabric)
        self._resume()

    def _share(self) -> None:
        """Have the student's batch norm see all ranks; raise BenchError where it would see a part of a batch alone."""
        if self.fabric.world_size > 1:
            shares.synchronise(self.student)
        if self.accumulate > 1 and any(isinstance(module, _BatchNorm) for module in self.student.modules()):
            raise BenchError(
                f"networks.{self.run.network.label}: its batch norm learns from a whole batch, so --accumulate "
                f"{self.accumulate} is another experiment; take more devices, or a network with frozen norms"
            )

    def fit(self, workers: int = 0, progress: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        """Train to the last step; each logged line also goes to progress.

        Raises Interrupted after saving, when `stopping` was set from outside (SIGTERM), and BenchError on a
        non-finite loss.
        """
        training = self.run.training
        if self.step and not self._agreed(self.fabric.is_global_zero and self.log.holds("evaluation", self.step)):
            self._evaluate_if_due(progress)
        for batch in self.stream.loader(self.step, workers, self.method.unlabelled):
            begun = time.monotonic()
            line = self._train_step(batch)
            self.seconds += time.monotonic() - begun
            self.step += 1
            last = self.step == training.steps
            if self.step % training.log_every == 0 or last:
                self._write({"event": "step", "step": self.step, **line()}, progress)
            self._evaluate_if_due(progress)
            stopping = self._agreed(self.stopping)
            if self.step % training.checkpoint_every == 0 or last or stopping:
                self._save()
            if stopping and not last:
                raise self._interrupted()
        if self.fabric.is_global_zero:
            before(self.checkpoint).unlink(missing_ok=True)

    def _train_step(self, batch: Batch) -> Callable[[], dict[str, Any]]:
        """Do one step; give a function that describes it, so that only a logged step pays for its description."""
        training, fabric = self.run.training, self.fabric
        torch.manual_seed(_seed(self.run.seed, self.step))
        rate = learning_rate(training, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        momentum = ema_momentum(self.step, training.ema)
        update_teacher(self.teacher, self.student, momentum)

        sizes = self._sizes(batch)
        batches = parts_of(batch, self.accumulate)
        made = [self._streams(part, sizes) for part in batches]
        ask = [partial(self._ask, streams) for streams, _ in made]
        answers = shares.mean_counts(ask) if len(made) > 1 else lambda: None
        seen = [self._learn(streams, answers(), batch, last=i + 1 == len(made)) for i, (streams, _) in enumerate(made)]
        if training.clip is not None:
            fabric.clip_gradients(self.learner, self.optimizer, max_norm=training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        pseudo = [targets for _, some in made for targets in some]
        return lambda: {
            "seconds": round(self.seconds, 3),
            "lr": training.lr * rate,
            "momentum": momentum,
            "loss": self._mean(seen),
            **({"pseudo": describe(pseudo, batch)} if pseudo else {}),
        }

    def _learn(self, streams: Streams, answers: Iterator[Tensor] | None, batch: Batch, last: bool) -> Losses:
        """Add the gradient of one part of the batch; ranks exchange it after the last."""
        waiting = self.fabric.no_backward_sync(self.learner, enabled=not last)
        with waiting, shares.answered(answers):
            losses: Losses = self.learner(streams)
            weighed = (self._weight(name) * loss for name, loss in losses.items() if self._weight(name))
            total = torch.as_tensor(sum(weighed))
            if self._agreed(not torch.isfinite(total)):
                raise BenchError(not_finite(losses, batch, self.run))
            self.fabric.backward(total / self.accumulate)
        return {name: loss.detach() for name, loss in losses.items()}

    def _ask(self, streams: Streams) -> None:
        with self.fabric.autocast():
            self.alone(streams)

    def _mean(self, seen: Sequence[Losses]) -> dict[str, float]:
        """Give each loss of the whole batch: its mean over parts and ranks."""
        values = torch.stack([torch.stack(list(losses.values())) for losses in seen]).mean(0)
        if self.fabric.world_size > 1:
            values = self.fabric.all_reduce(values, reduce_op="mean")  # type: ignore[assignment]
        return dict(zip(seen[0], values.tolist(), strict=True))

    def _sizes(self, batch: Batch) -> list[tuple[int, int]]:
        """Give what labelled, weak and strong views are padded to: the largest of the whole batch."""
        views = [[one.view for one in batch.labelled], *([] for _ in range(2))]
        for one in batch.unlabelled:
            views[1].append(one.weak)
            views[2].append(one.strong)
        return shares.largest([[view.size for view in some] for some in views], self.fabric.device)

    def _streams(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> tuple[Streams, list[Targets]]:
        """Give what the student learns from a part of the batch, and its pseudo-labels in their weak views."""
        device, (labelled, weak, strong) = self.fabric.device, sizes
        images = [one.view.image.to(device) for one in batch.labelled]
        truth = [Targets.of_truth(one.instances.to(device)) for one in batch.labelled]
        streams = {"labelled": (images, self._seeded(truth, batch.labelled), labelled)}
        pseudo: list[Targets] = []
        if batch.unlabelled:
            guided = self.guide is not None and self.step < getattr(self.method, "guided_steps", 0)
            teacher, seeds = self.guide if guided else self.teacher, self._seeds(batch.unlabelled)
            with shares.canvas(weak):
                pseudo = teaching.pseudo_label(self.method, teacher, batch, seeds, self.fabric)
            images = [one.strong.image.to(device) for one in batch.unlabelled]
            streams["unlabelled"] = (images, self._seeded(teaching.project(batch, pseudo), batch.unlabelled), strong)
        return Streams(**streams), pseudo

    def _seeded(self, targets: Sequence[Targets], images: Sequence[Labelled | Unlabelled]) -> list[Targets]:
        return [replace(one, seed=seed) for one, seed in zip(targets, self._seeds(images), strict=True)]

    def _seeds(self, images: Sequence[Labelled | Unlabelled]) -> list[int]:
        """Let what is drawn about an image follow from run, step and image, and not from the rank."""
        return [_seed(self.run.seed, self.step, one.image_id) for one in images]

    def _weight(self, name: str) -> float:
        stream, term = name.split("/")
        if stream == "labelled":
            return 1.0
        return self.method.unlabelled_weight * self.method.term_weights.get(term, 1.0)

    def _evaluate_if_due(self, progress: Callable[[dict[str, Any]], None]) -> None:
        """Evaluate if this step asks for it; who is told to stop meanwhile saves, and evaluates when it goes on."""
        training = self.run.training
        if self.step % training.evaluate_every and self.step != training.steps:
            return
        line: dict[str, Any] | None = None
        with contextlib.suppress(_CutShort):
            line = self._evaluate()
        if self._agreed(line is None):
            self._save()
            raise self._interrupted()
        found = {"event": "evaluation", "step": self.step, **(line or {})}
        self.best.look(found, {"teacher": self.teacher, "student": self.student})
        self._write(found, progress)

    def _evaluate(self) -> dict[str, Any]:
        """Measure student and teacher on the validation set, on the first rank."""
        training = self.run.training
        seen = self.step * training.labelled_batch
        if self.method.unlabelled:
            seen += max(0, self.step - training.burn_in) * training.unlabelled_batch
        line: dict[str, Any] = {"seconds": round(self.seconds, 3), "images_seen": seen}
        if self.fabric.is_global_zero:
            with self.fabric.autocast():
                for name in ("student", "teacher"):
                    line[name] = self.validation.measure(getattr(self, name), self.fabric.device, self._go_on)
        return line

    def _go_on(self, done: int) -> None:
        if self.stopping:
            raise _CutShort

    def _agreed(self, flag: bool) -> bool:
        """Say whether any rank says so: ranks that decide apart wait for each other for ever."""
        if self.fabric.world_size == 1:
            return flag
        told = torch.tensor(float(flag), device=self.fabric.device)
        return bool(self.fabric.all_reduce(told, reduce_op="sum"))

    def _interrupted(self) -> Interrupted:
        steps = self.run.training.steps
        return Interrupted(f"stopped after step {self.step} of {steps}; run the same command to go on")

    def _write(self, line: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> None:
        if self.fabric.is_global_zero:
            self.log.append(line)
            progress(line)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            state = {
                "digest": self.run.digest,
                "step": self.step,
                "seconds": self.seconds,
                "student": self.student.state_dict(),
                "teacher": self.teacher.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            self.guard()
            self.log.sync()
            self.best.write(self.run.digest)
            write_checkpoint(self.checkpoint, state)
        self.fabric.barrier()

    def _resume(self) -> None:
        """Go on from the run's newest whole checkpoint, if it has one; the log forgets what came after it."""
        state, self.fault = newest(self.checkpoint, self.run)
        if state is not None:
            self.student.load_state_dict(state["student"])
            self.teacher.load_state_dict(state["teacher"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.step, self.seconds = state["step"], state["seconds"]
            evaluated = self.step > self.run.training.evaluate_every
            self.best.resume(self.step, evaluated, lambda path: read_checkpoint(path, self.run))
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            self.log.keep_until(self.step)


class _CutShort(Exception):
    """Leave an evaluation that is too long to be waited for."""


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
