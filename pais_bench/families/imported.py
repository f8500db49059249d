"""Which images does a list of the user name? `pais-bench import-split` writes the split; nothing is drawn."""

from __future__ import annotations

from pathlib import Path

from pais_bench.pools import Drawn, Pool
from pais_bench.types import BenchError

SOURCE = ""


def draw(pool: Pool, percent: float, fold: int, source: Path | None) -> Drawn:
    """Raise BenchError that names the command which makes the split."""
    raise BenchError(
        f"split.family: imported splits are not drawn; "
        f"run `pais-bench import-split STUDY FILE --percent {percent:g} --fold {fold}`"
    )
