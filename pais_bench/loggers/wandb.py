"""Log to a project of Weights & Biases, as `wandb login` and the variables WANDB_* set it up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pais_bench.errors import BenchError
from pais_bench.loggers.base import PREFIXES, LoggerBase
from pais_bench.optional_packages import import_package

DEFAULT = "pais_bench"
"""The project, where none is named."""


class Logger(LoggerBase):
    """Log a line a call; the axis of its numbers is their own step, training/step or evaluation/step."""

    def __init__(self, run: str, to: str) -> None:
        """Continue the run whose id is its name with - for /, or create it.

        Raises BenchError offline where the run is there: an offline run is a file of its own, which cannot continue.
        """
        wandb = import_package("wandb", "install it there: pip install wandb")
        identity = run.replace("/", "-")
        settings = wandb.setup().settings
        present = list(Path(settings.wandb_dir).glob(f"offline-run-*-{identity}"))
        if settings.mode == "offline" and present:
            raise BenchError(
                f"{present[0]}: has this run already, and W&B cannot continue it offline; send it with `wandb sync`, "
                f"or remove it to log the run anew"
            )
        try:
            # create_new: by default a second run of a process would be the first one again.
            several = wandb.Settings(silent=True, reinit="create_new")
            self._run = wandb.init(project=to, id=identity, name=run, resume="allow", settings=several)
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise BenchError(f"W&B: {reason}; check `wandb login`, or set WANDB_MODE=offline") from error
        for prefix in PREFIXES.values():
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")

    def last_steps(self) -> dict[str, int]:
        """Return the step of the newest line of its kind for every number in the summary of the run."""
        # The summary of W&B is no mapping that can be iterated.
        names = list(self._run.summary.keys())
        steps = {name: self._run.summary.get(f"{name.partition('/')[0]}/step") for name in names}
        return {name: int(step) for name, step in steps.items() if step is not None}

    def send(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Log a line."""
        prefix = next(iter(numbers)).partition("/")[0]
        self._run.log({**numbers, f"{prefix}/step": step})

    def close(self, trained: bool) -> None:
        """Finish the process that sends; a run that goes on is continued by the next call."""
        self._run.finish()
