"""How does a test train in a process of its own that it can kill, starve or patch? A fork: a start costs no import."""

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

from pais_bench import cli, engine
from pais_bench.study_file import load_study

RUN = ("--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised")


class Training:
    """Hold a prepared tiny study, and run verbs of it in forked processes."""

    def __init__(self, folder: Path, **training: Any) -> None:
        values = study(methods={"supervised": {}})
        values["training"] |= {"checkpoint_every": 1, **training}
        self.path, self.results, self.said = folder / "tiny.yaml", folder / "results", folder / "said.txt"
        folder.mkdir(exist_ok=True)
        self.path.write_text(yaml.safe_dump(values))
        self.folder = self.results / load_study(self.path).runs()[0].folder
        for words in (("prepare",), ("split", *RUN[:4])):
            assert cli.main([words[0], str(self.path), "--results", str(self.results), *words[1:]]) == 0

    def start(self, *words: str, before: Callable[[], object] = lambda: None) -> int:
        """Start training in a process of its own, which first does something, and give its pid."""
        pid = os.fork()
        if pid:
            return pid
        sys.stderr, code = self.said.open("w"), 1
        try:
            before()
            code = cli.main(["train", str(self.path), "--results", str(self.results), *RUN, *words])
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self, pid: int) -> int:
        """Give the exit code of a process, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def train(self, *words: str, before: Callable[[], object] = lambda: None) -> int:
        return self.wait(self.start(*words, before=before))

    def refused(self, *parts: str) -> None:
        """Check that one line names a fault, has the parts, and that the next has the command that goes on."""
        text = self.said.read_text()
        (place,) = (i for i, line in enumerate(text.splitlines()) if "error:" in line)
        for part in parts:
            assert part in text.splitlines()[place], text
        assert "this goes on from the last checkpoint: " in text.splitlines()[place + 1]
        assert "Traceback" not in text

    def weights(self) -> dict[str, torch.Tensor]:
        state: dict[str, dict[str, torch.Tensor]] = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        return state["student"] | {f"teacher.{name}": value for name, value in state["teacher"].items()}

    def log(self) -> list[dict[str, Any]]:
        lines = (json.loads(text) for text in (self.folder / "log.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def ends_like(training: Training, whole: Training) -> None:
    """Go on, and check that nothing was lost."""
    assert training.train() == 0, training.said.read_text()
    mine, theirs = training.weights(), whole.weights()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert training.log() == whole.log()
    assert sorted(path.name for path in training.folder.iterdir()) == ["checkpoint.pt", "log.jsonl", "run.json"]


def until_step(training: Training, step: int) -> Callable[[], object]:
    """Let a forked training stop after a step, without a signal from outside."""

    def patched() -> None:
        fit = engine.Trainer.fit

        def stop(self: engine.Trainer, workers: int, progress: Callable[[dict[str, Any]], None]) -> None:
            def pull(line: dict[str, Any]) -> None:
                self.stopping = line["step"] == step

            fit(self, workers, pull)

        engine.Trainer.fit = stop  # type: ignore[method-assign]

    return patched
