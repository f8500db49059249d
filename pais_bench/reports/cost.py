"""What did each cell of the grid cost? Hours, images a second, memory, and energy where it was measured."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._external import NO_LOG, named
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table
from pais_bench.results import Results

NAMES = {
    "hours": ("hours", "{:.2f}"),
    "images_per_second": ("images/s", "{:.1f}"),
    "peak_memory_gib": ("memory (GiB)", "{:.1f}"),
    "peak_device_memory_gib": ("device memory (GiB)", "{:.1f}"),
    "energy_kwh": ("energy (kWh)", "{:.2f}"),
}


class Report:
    """Write cost.csv, cost.md and cost.tex, a row per network, method and percent; then of other codebases."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write means over the trained folds; a dash where nothing was told."""
        costs = _costs(study, results)
        return [
            write_csv(folder / "cost.csv", costs),
            *_table(study, costs).write(folder, "cost", f"{study.name}:cost"),
        ]


def _costs(study: Study, results: Results) -> pd.DataFrame:
    seen = results.curves.groupby("digest")["images_seen"].max()
    runs = results.runs.assign(images_seen=results.runs["digest"].map(seen).astype(float))
    trained = runs[runs["wall_seconds"].notna()]
    others = results.external.assign(method=named(results, results.external))[["network", "method", "percent"]]
    grid = itertools.product(study.networks, study.methods, study.split.percents)
    cells = [*grid, *others.drop_duplicates().itertuples(index=False, name=None)]
    return pd.DataFrame([_cost(trained, *cell) for cell in cells])


def _cost(trained: pd.DataFrame, network: str, method: str, percent: float) -> dict[str, Any]:
    chosen = (trained["network"] == network) & (trained["method"] == method) & (trained["percent"] == percent)
    ours = trained[chosen]
    seconds = ours["wall_seconds"].astype(float)
    return {
        "network": network,
        "method": method,
        "percent": percent,
        "folds": len(ours),
        "devices": " + ".join(sorted(set(ours["device"].dropna()))),
        "hours": seconds.mean() / 3600,
        "images_per_second": (ours["images_seen"] / seconds.where(seconds > 0)).mean(),
        "peak_memory_gib": ours["peak_memory_mib"].astype(float).mean() / 1024,
        "peak_device_memory_gib": ours["peak_device_memory_mib"].astype(float).mean() / 1024,
        "energy_kwh": ours["energy_kwh"].astype(float).mean(),
    }


def _table(study: Study, costs: pd.DataFrame) -> Table:
    columns = [name for name in NAMES if name in ("hours", "images_per_second") or costs[name].notna().any()]
    rows = [
        [
            *(row["network"], row["method"], f"{row['percent']:g} %", row["devices"] or "–"),
            *("–" if pd.isna(row[name]) else NAMES[name][1].format(row[name]) for name in columns),
        ]
        for _, row in costs.iterrows()
    ]
    caption = (
        f"Cost of one training on {study.dataset.label}, mean over the trained folds: hours of training without "
        "evaluations, images of all streams a second, peak memory of the main process."
    )
    ours = costs[costs["method"].isin(study.methods)]
    missing = int((ours["folds"] < len(study.split.folds)).sum())
    notes = [f"{missing} of {len(ours)} cells lack folds."] if missing else []
    if len(ours) < len(costs):
        notes.append(f"{NO_LOG}.")
    heads = ["network", "method", "labels", "device", *(NAMES[name][0] for name in columns)]
    return Table(caption, heads, rows, 4, notes)
