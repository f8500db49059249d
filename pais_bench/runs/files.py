"""Name the files in the folder of a run, for all that write, read or await them; the rules of Snakemake repeat them."""

from __future__ import annotations

RUN = "run.json"
"""What the training was, written at its end: a run that has it is trained."""
LOG = "log.jsonl"
"""A line for each logged step and each evaluation."""
CHECKPOINT = "checkpoint.pt"
"""Everything that a training continues from."""
DATA = "data.json"
"""The content of the data that it was trained on."""
LOCK = "lock.json"
"""Who trains it now."""

STEP_LINE, EVALUATION_LINE = b'{"event": "step"', b'{"event": "evaluation"'
"""How lines of the log begin; their event is their first key, so that long logs are read without parsing every line."""


def predictions_file(end: str = "") -> str:
    """Return the name of the predictions, COCO results, of a checkpoint; end is its `study.run.suffix`."""
    return f"predictions{end}.json"


def metrics_file(end: str = "") -> str:
    """Return the name of the numbers of every metric of the study; a checkpoint that has it is evaluated."""
    return f"metrics{end}.json"


def errors_file(end: str = "") -> str:
    """Return the name of the analysis of the errors of a checkpoint's predictions."""
    return f"errors{end}.json"


def examples_file(end: str = "") -> str:
    """Return the name of what a checkpoint's teacher and student detect on a few images."""
    return f"examples{end}.json"


def best_checkpoint(model: str) -> str:
    """Return the name of the weights of a model, teacher or student, at its best evaluation."""
    return f"best-{model}.pt"
