"""Train in a forked process that a test can kill, starve or patch; a fork costs no import."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny import study

from pais_bench import plugins
from pais_bench.cli.main import main
from pais_bench.study.load import load_study
from pais_bench.training.trainer import Trainer

plugins.load("backends", "torchvision/mask_rcnn")  # so that a fork whose memory is limited need not map it

RUN = ("--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised")


class Training:
    """Hold a prepared tiny study, and run commands of it in forked processes."""

    def __init__(self, folder: Path, **training: Any) -> None:
        values = study(methods={"supervised": {}})
        values["training"] |= {"checkpoint_every": 1, **training}
        self.path, self.results, self.stderr = folder / "tiny.yaml", folder / "results", folder / "stderr.txt"
        folder.mkdir(exist_ok=True)
        self.path.write_text(yaml.safe_dump(values))
        self.folder = self.results / load_study(self.path).runs()[0].folder
        for command, options in (("prepare", ()), ("split", RUN[:4])):
            assert main([command, str(self.path), "--results", str(self.results), *options]) == 0

    def start(self, *options: str, before: Callable[[], object] = lambda: None) -> int:
        """Start training in a forked process, which first calls before, and return its pid."""
        pid = os.fork()
        if pid:
            return pid
        sys.stderr, code = self.stderr.open("w"), 1
        try:
            before()
            code = main(["train", str(self.path), "--results", str(self.results), *RUN, *options])
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self, pid: int) -> int:
        """Return the exit code of a process, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def train(self, *options: str, before: Callable[[], object] = lambda: None) -> int:
        return self.wait(self.start(*options, before=before))

    def assert_refused(self, *parts: str) -> None:
        """Check that one line has the error and the parts, and that the next has the command that continues."""
        text = self.stderr.read_text()
        lines = text.splitlines()
        (index,) = (i for i, line in enumerate(lines) if "error:" in line)
        assert all(part in lines[index] for part in parts), text
        assert "this continues from the last checkpoint: " in lines[index + 1] and "Traceback" not in text

    def weights(self) -> dict[str, torch.Tensor]:
        state: dict[str, dict[str, torch.Tensor]] = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        return state["student"] | {f"teacher.{name}": value for name, value in state["teacher"].items()}

    def log(self) -> list[dict[str, Any]]:
        lines = (json.loads(text) for text in (self.folder / "log.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_ends_like(training: Training, reference: Training) -> None:
    """Continue a training, and check that it ends like one without interruption."""
    assert training.train() == 0, training.stderr.read_text()
    weights = training.weights()
    assert all(torch.equal(weights[name], value) for name, value in reference.weights().items())
    assert training.log() == reference.log()
    assert sorted(path.name for path in training.folder.iterdir()) == [
        "checkpoint.pt",
        "data.json",
        "log.jsonl",
        "run.json",
    ]


def until_step(training: Training, step: int) -> Callable[[], object]:
    """Return a patch that stops a forked training after a step, without a signal."""

    def patch() -> None:
        fit = Trainer.fit

        def stop(self: Trainer, workers: int, progress: Callable[[dict[str, Any]], None]) -> None:
            def stop_at_step(line: dict[str, Any]) -> None:
                self.stopping = line["step"] == step

            fit(self, workers, stop_at_step)

        Trainer.fit = stop  # type: ignore[method-assign]

    return patch
