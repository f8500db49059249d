"""Select the logged pseudo-labels of the second half of each run, when the teacher has matured."""

from __future__ import annotations

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

NOTHING_KEPT = "No training kept a pseudo-label in its second half; lower the method's thresholds, or train longer."


def require_log(study: Study, results: Results) -> pd.DataFrame:
    """Return the logged pseudo-labels of every run; raise NothingToShow where there are none."""
    if results.pseudo_label_log.empty:
        raise NothingToShow(f"No run of study '{study.name}' has logged pseudo-labels yet.")
    return results.pseudo_label_log


def second_half(log: pd.DataFrame) -> pd.DataFrame:
    """Return the rows after half of the steps that each run has reached."""
    return log[log["step"] > log.groupby("digest")["step"].transform("max") / 2]


def late_pseudo_labels(study: Study, results: Results, *arrays: str) -> pd.DataFrame:
    """Return the second half of the log where it has these arrays; raise NothingToShow with the reason if nowhere."""
    late = second_half(require_log(study, results))
    present = late.dropna(subset=list(arrays))
    if present.empty and late["kept_per_image"].max() == 0:
        raise NothingToShow(NOTHING_KEPT)
    if present.empty:
        raise NothingToShow(f"The logs have no {' and no '.join(arrays)}; train again, on data with held-out labels.")
    return present
