"""Which looks at pseudo-labels count? Those of the second half of a run, when its teacher is what it became."""

from __future__ import annotations

import pandas as pd

from pais_bench.config import Study
from pais_bench.results import Results
from pais_bench.types import LeftOut


def late(study: Study, results: Results, *arrays: str) -> pd.DataFrame:
    """Give the looks later than half of the steps that each run has reached, and have these arrays.

    Raises LeftOut where there is none, and says why.
    """
    looks = results.looks
    if looks.empty:
        raise LeftOut(f"No run of study '{study.name}' has logged pseudo-labels yet.")
    reached = looks.groupby("digest")["step"].transform("max")
    chosen = looks[looks["step"] > reached / 2]
    for name in arrays:
        chosen = chosen[chosen[name].notna()]
    if chosen.empty:
        raise LeftOut(f"The logs have no {' and no '.join(arrays)}; train again, on data with hidden truth.")
    return chosen
