"""Log to an experiment of MLflow, on the server of MLFLOW_TRACKING_URI, for which mlflow-skinny is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pais_bench.errors import BenchError
from pais_bench.loggers.base import LoggerBase
from pais_bench.optional_packages import import_package

DEFAULT = "pais_bench"
"""The experiment, where none is named."""
TAG = "pais_bench.run"
"""The tag that holds the name of a run; MLflow's own names need not be unique."""
BATCH = 1000
"""Metrics of one call, the most that MLflow takes."""


class Logger(LoggerBase):
    """Log a metric per number; its time is that of training."""

    def __init__(self, run: str, to: str) -> None:
        """Find the run by its tag, or create it."""
        self._mlflow = import_package("mlflow", "install it there: pip install mlflow-skinny")
        self._client = self._call(self._mlflow.MlflowClient)
        experiment = self._call(self._client.get_experiment_by_name, to)
        number = experiment.experiment_id if experiment else self._call(self._client.create_experiment, to)
        # A name has no quotation mark: it is made of labels and digits.
        found = self._call(self._client.search_runs, [number], f"tags.`{TAG}` = '{run}'")
        self._run = found[0] if found else self._call(self._client.create_run, number, run_name=run, tags={TAG: run})
        self._id: str = self._run.info.run_id

    def last_steps(self) -> dict[str, int]:
        """Return the last step of every metric."""
        names = self._run.data.metrics
        histories = {name: self._call(self._client.get_metric_history, self._id, name) for name in names}
        return {name: max(metric.step for metric in history) for name, history in histories.items() if history}

    def send(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Log the metrics."""
        entities, milliseconds = self._mlflow.entities, round(1000 * seconds)
        metrics = [entities.Metric(name, value, milliseconds, step) for name, value in numbers.items()]
        for start in range(0, len(metrics), BATCH):
            self._call(self._client.log_batch, self._id, metrics[start : start + BATCH])

    def close(self, trained: bool) -> None:
        """End the run where its training has ended."""
        if trained:
            self._call(self._client.set_terminated, self._id)

    def _call(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Call the client; raise BenchError with what MLflow says, or lacks for the place that it is to write to."""
        try:
            return function(*arguments, **more)
        except self._mlflow.exceptions.MlflowException as error:
            reason = " ".join(str(error).split())
            raise BenchError(f"MLflow: {reason}; check MLFLOW_TRACKING_URI, and run the command again") from error
        except ModuleNotFoundError as error:
            raise BenchError(
                f"MLflow lacks the package '{error.name}' for a database on this machine; pip install mlflow, or name "
                f"a server with MLFLOW_TRACKING_URI"
            ) from error
