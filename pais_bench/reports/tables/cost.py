"""Tabulate the cost of training in each cell of the grid: hours, images per second and memory."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pais_bench.reports.cells import in_cell
from pais_bench.reports.external_rows import NO_LOG, external_labels
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport
from pais_bench.reports.teachers import teacher_note
from pais_bench.study.study import Study

COLUMNS = {
    "hours": ("hours", "{:.2f}"),
    "images_per_second": ("images/s", "{:.1f}"),
    "peak_memory_gib": ("memory (GiB)", "{:.1f}"),
    "peak_device_memory_gib": ("device memory (GiB)", "{:.1f}"),
}


class Report(TableReport):
    """Write a row per network, method and percent; then those of other codebases."""

    title = "Training cost"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return means over the trained folds."""
        images = results.curves.groupby("digest")["images_seen"].max()
        runs = results.runs.assign(images_seen=results.runs["digest"].map(images).astype(float))
        trained = runs[runs["wall_seconds"].notna()]
        external = results.external.assign(method=external_labels(results, results.external))
        others = external[["network", "method", "percent"]].drop_duplicates().itertuples(index=False, name=None)
        return pd.DataFrame([_cost(trained, *cell) for cell in [*study.cells(), *others]])

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where nothing was measured."""
        names = [name for name in COLUMNS if name in ("hours", "images_per_second") or frame[name].notna().any()]
        rows = [
            [
                *(row["network"], row["method"], f"{row['percent']:g} %", row["devices"] or "–"),
                *("–" if pd.isna(row[name]) else COLUMNS[name][1].format(row[name]) for name in names),
            ]
            for _, row in frame.iterrows()
        ]
        caption = (
            f"Cost of one training on {study.dataset.label}, mean over the trained folds: hours of training without "
            "evaluations, images per second (labelled and unlabelled), peak memory of the main process."
        )
        cells = frame[frame["method"].isin(study.methods)]
        missing = int((cells["folds"] < len(study.split.folds)).sum())
        notes = [f"{missing} of {len(cells)} cells lack folds."] if missing else []
        if len(cells) < len(frame):
            notes.append(f"{NO_LOG}.")
        if note := teacher_note(study):
            notes.append(note)
        return Table(
            caption, ["network", "method", "labels", "device", *(COLUMNS[n][0] for n in names)], rows, 4, notes
        )


def _cost(trained: pd.DataFrame, network: str, method: str, percent: float) -> dict[str, Any]:
    runs = trained[in_cell(trained, network, method, percent)]
    seconds = runs["wall_seconds"].astype(float)
    return {
        "network": network,
        "method": method,
        "percent": percent,
        "folds": len(runs),
        "devices": " + ".join(sorted(set(runs["device"].dropna()))),
        "hours": seconds.mean() / 3600,
        "images_per_second": (runs["images_seen"] / seconds.where(seconds > 0)).mean(),
        "peak_memory_gib": runs["peak_memory_mib"].astype(float).mean() / 1024,
        "peak_device_memory_gib": runs["peak_device_memory_mib"].astype(float).mean() / 1024,
    }
