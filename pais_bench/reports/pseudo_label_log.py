"""Select the logged pseudo-labels of the second half of each run, when the teacher has matured."""

from __future__ import annotations

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

NOT_COMPARED = "The logs have no pseudo-labels of images with held-out labels; train again, on data that has them."


def require_log(study: Study, results: Results) -> pd.DataFrame:
    """Return the logged pseudo-labels of every run; raise NothingToShow where there are none."""
    if results.pseudo_label_log.empty:
        raise NothingToShow(f"No run of study '{study.name}' has logged pseudo-labels yet.")
    return results.pseudo_label_log


def second_half(log: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after half of the steps that each run has reached."""
    return log[log["step"] > log.groupby("digest")["step"].transform("max") / 2]


def late_pseudo_labels(study: Study, results: Results, *arrays: str) -> pd.DataFrame:
    """Return the second half of the log where it has these arrays; raise NothingToShow with the reason if nowhere.

    Raises NothingToShow too where no pseudo-label was kept. Bins of images without held-out labels are empty.
    """
    late = second_half(require_log(study, results))
    if late["kept_per_image"].max() == 0:
        raise NothingToShow(
            "No training kept a pseudo-label in its second half; lower the method's thresholds, or train longer."
        )
    late = late.dropna(subset=list(arrays))
    if late.empty:
        raise NothingToShow(NOT_COMPARED)
    return late
