"""How does a run train? One loop for every method: a student learns, a teacher is its running average.

A step:  teacher <- m teacher + (1 - m) student          [m = min(ema, 1 - 1/(t+1)), before the step; paper.md 2.1]
         targets <- method.weigh(teacher(weak view)), projected into the strong view;
                    in the first guided_steps of a method that wants it, a network trained before is the teacher
         loss    <- student(labelled views) + unlabelled_weight * student(strong views)
Every random draw is a function of (seed, step, rank), so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pais_bench import geometry, inference, plugins
from pais_bench.checkpoint import Best, Log, write_checkpoint
from pais_bench.config import Run, Weights
from pais_bench.data import Stream
from pais_bench.diagnostics import describe
from pais_bench.schedule import build_optimizer, ema_momentum, learning_rate, update_teacher
from pais_bench.splits import Split
from pais_bench.store import Store
from pais_bench.types import Batch, BenchError, Method, Score, Targets

Losses = dict[str, Tensor]


class Streams:
    """Hold the views and targets of each stream of one step.

    A plain object, because Fabric takes apart the collections and dataclasses that it hands to a module.
    """

    def __init__(self, **streams: tuple[Sequence[Tensor], Sequence[Targets]]) -> None:
        self.streams = streams


class Learner(nn.Module):
    """Wrap the student, so that a step is one forward of one module however many streams it has.

    Two forwards of a module under DistributedDataParallel break its gradient buckets; one that calls it twice does not.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.momentum = {module: module.momentum for module in student.modules() if isinstance(module, _BatchNorm)}

    def forward(self, step: Streams) -> Losses:
        """Give losses as stream/term; running statistics follow labelled views: patches and shears are for training."""
        losses: Losses = {}
        for stream, (images, targets) in step.streams.items():
            for norm, momentum in self.momentum.items():
                norm.momentum = momentum if stream == "labelled" else 0.0
            named = self.student.loss(images, targets)  # type: ignore[operator]
            losses |= {f"{stream}/{term}": loss for term, loss in named.items()}
        return losses


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
    ) -> None:
        """Build or resume a run; results is where the run of its trained teacher lies, if it wants one.

        best names the models, of teacher and student, whose weights at their best evaluation are kept beside the last.
        """
        self.run, self.val, self.folder, self.fabric = run, stores["val"], folder, fabric
        self.validation = inference.Validation(run, self.val)
        extra = stores.get("unlabelled")
        self.stream = Stream(run, stores["train"], split, fabric.global_rank, fabric.world_size, extra)
        plugin = plugins.load("methods", run.method.name)
        self.method: Method = plugin.Method(plugin.Options(**run.method.options))
        torch.manual_seed(run.seed)
        self.student: Any = inference.build_backend(run, len(self.val.categories)).to(fabric.device)
        self.teacher: Any = copy.deepcopy(self.student).requires_grad_(False)
        optimizer = build_optimizer(self.student, run.training)
        self.learner, self.optimizer = fabric.setup(Learner(self.student), optimizer)
        self.step, self.seconds, self.stopping = 0, 0.0, False
        self.log, self.best = Log(folder / "log.jsonl"), Best(folder, best)
        self.guide = self._trained_teacher(results)
        self._resume()

    def fit(self, workers: int = 0, progress: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        """Train to the last step; each logged line also goes to progress.

        Raises Interrupted after saving, when `stopping` was set from outside (SIGTERM), and BenchError on a
        non-finite loss.
        """
        training = self.run.training
        for batch in self.stream.loader(self.step, workers, self.method.unlabelled):
            begun = time.monotonic()
            line = self._train_step(batch)
            self.seconds += time.monotonic() - begun
            self.step += 1
            last = self.step == training.steps
            if self.step % training.log_every == 0 or last:
                self._write({"event": "step", "step": self.step, **line()}, progress)
            if self.step % training.evaluate_every == 0 or last:
                found = {"event": "evaluation", "step": self.step, **self._evaluate()}
                self.best.look(found, {"teacher": self.teacher, "student": self.student})
                self._write(found, progress)
            if self.step % training.checkpoint_every == 0 or last or self.stopping:
                self._save()
            if self.stopping and not last:
                raise Interrupted(f"stopped after step {self.step} of {training.steps}; run the same command to go on")

    def _train_step(self, batch: Batch) -> Callable[[], dict[str, Any]]:
        """Do one step; give a function that describes it, so that only a logged step pays for its description."""
        training, fabric = self.run.training, self.fabric
        torch.manual_seed(_seed(self.run.seed, self.step, fabric.global_rank))
        rate = learning_rate(training, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        momentum = ema_momentum(self.step, training.ema)
        update_teacher(self.teacher, self.student, momentum)

        images = [one.view.image.to(fabric.device) for one in batch.labelled]
        truth = [Targets.of_truth(one.instances.to(fabric.device)) for one in batch.labelled]
        streams = {"labelled": (images, truth)}
        pseudo: list[Targets] = []
        if batch.unlabelled:
            pseudo = self._pseudo_label(batch)
            strong = [one.strong.image.to(fabric.device) for one in batch.unlabelled]
            streams["unlabelled"] = (strong, self._project(batch, pseudo))

        losses = self.learner(Streams(**streams))
        total = sum(self._weight(name) * loss for name, loss in losses.items() if self._weight(name))
        if not torch.isfinite(total):
            raise BenchError(_not_finite(losses, batch, self.run))
        fabric.backward(total)
        if training.clip is not None:
            fabric.clip_gradients(self.learner, self.optimizer, max_norm=training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return lambda: {
            "seconds": round(self.seconds, 3),
            "lr": training.lr * rate,
            "momentum": momentum,
            "loss": {name: loss.item() for name, loss in losses.items()},
            **({"pseudo": describe(pseudo, batch)} if pseudo else {}),
        }

    def _pseudo_label(self, batch: Batch) -> list[Targets]:
        """Ask the teacher for the weak views, and the method for the worth of what it says."""
        guided = self.guide is not None and self.step < getattr(self.method, "guided_steps", 0)
        teacher = self.guide if guided else self.teacher
        weigh_scored = getattr(self.method, "weigh_scored", None)
        with torch.no_grad(), self.fabric.autocast():
            images = [one.weak.image.to(self.fabric.device) for one in batch.unlabelled]
            seen = teacher.predict(images)
            if weigh_scored is None:
                return [self.method.weigh(instances) for instances in seen]
            return [weigh_scored(found, _asking(teacher, image)) for found, image in zip(seen, images, strict=True)]

    def _trained_teacher(self, results: Path) -> Any:
        """Load the network of the run that is to be the teacher, and let the method set its thresholds by it."""
        if hasattr(self.method, "weigh_scored") and not hasattr(self.teacher, "score"):
            network = f"{self.run.network.backend}/{self.run.network.name}"
            raise BenchError(f"methods.{self.run.method.label}: needs the verb 'score', which {network} does not have")
        if self.run.teacher is None:
            return None
        taught = self.run.teacher
        weights: Weights = "teacher-last" if taught.model == "teacher" else "student-last"
        guide: Any = inference.load_trained(taught, len(self.val.categories), results / taught.folder, weights)
        guide = guide.to(self.fabric.device).requires_grad_(False).eval()
        if hasattr(self.method, "calibrate"):
            seen = self.stream.unlabelled_sample(self.method.calibration_images)  # type: ignore[attr-defined]
            with torch.no_grad(), self.fabric.autocast():
                found = [guide.predict([view.image.to(self.fabric.device)])[0] for view in seen]
            self.method.calibrate(found, self.stream.labels(), len(self.val.categories))
        return guide

    def _project(self, batch: Batch, pseudo: Sequence[Targets]) -> list[Targets]:
        return [
            geometry.project_targets(targets, one.strong.matrix @ torch.linalg.inv(one.weak.matrix), one.strong.size)
            for one, targets in zip(batch.unlabelled, pseudo, strict=True)
        ]

    def _weight(self, name: str) -> float:
        stream, term = name.split("/")
        if stream == "labelled":
            return 1.0
        return self.method.unlabelled_weight * self.method.term_weights.get(term, 1.0)

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
                    line[name] = self.validation.measure(getattr(self, name), self.fabric.device)
        self.fabric.barrier()
        return line

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
            self.best.write(self.run.digest)
            write_checkpoint(self.folder / "checkpoint.pt", state)
        self.fabric.barrier()

    def _resume(self) -> None:
        """Go on from the run's checkpoint, if it has one; the log forgets what came after it."""
        path = self.folder / "checkpoint.pt"
        if path.exists():
            state = inference.read_checkpoint(path, self.run)
            self.student.load_state_dict(state["student"])
            self.teacher.load_state_dict(state["teacher"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.step, self.seconds = state["step"], state["seconds"]
            evaluated = self.step >= self.run.training.evaluate_every
            self.best.resume(self.step, evaluated, lambda path: inference.read_checkpoint(path, self.run))
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            self.log.keep_until(self.step)


def _asking(teacher: Any, image: Tensor) -> Score:
    """Give the verb `score` of one image, without a gradient."""

    @torch.no_grad()
    def score(boxes: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = teacher.score([image], [boxes])[0]
        return found

    return score


class Interrupted(Exception):
    """Say that a run stopped before its last step, with everything saved."""


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _not_finite(losses: Losses, batch: Batch, run: Run) -> str:
    bad = [name for name, loss in losses.items() if not torch.isfinite(loss)] or ["the sum"]
    images = [one.image_id for one in batch.labelled] + [one.image_id for one in batch.unlabelled]
    terms = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
    return (
        f"{run.folder}: loss not finite at step {batch.step} in {', '.join(bad)} ({terms}) on images {images}; "
        f"lower training.lr, set training.clip, or lengthen training.warmup_steps"
    )
