"""Tabulate by how much AP50 would rise without each kind of error, for each method and checkpoint."""

from __future__ import annotations

import itertools

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.evaluation.coco.errors import KINDS
from pais_bench.reports.error_analysis import MISSING, analyses, axes, require_store
from pais_bench.reports.external_rows import source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Bold, Table, TableReport
from pais_bench.study.study import Study

CELL = ["network", "percent", "method", "checkpoint"]


class Report(TableReport):
    """Write a row per network, percent, method and evaluated checkpoint, and a column per kind of error."""

    title = "Kinds of errors"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return AP50 and dAP in percent, means over the evaluated folds; raise NothingToShow without any."""
        rows = [
            {name: getattr(one, name) for name in CELL} | {"AP50": one.content["AP50"], **one.content["dAP"]}
            for one in analyses(results, require_store(study, results), study.checkpoints)
        ]
        if not rows:
            raise NothingToShow(MISSING)
        numbers = ["AP50", *KINDS]
        frame = pd.DataFrame(rows)
        frame[numbers] = frame[numbers].astype(float) * 100
        cells = frame.groupby(CELL, sort=False)[numbers]
        return pd.concat([cells.size().rename("folds"), cells.mean()], axis=1).reset_index()

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; the largest gain of a row is bold."""
        several = len(study.checkpoints) > 1
        values = frame.set_index(CELL).to_dict("index")
        keys = itertools.product(*axes(study, frame), (*study.checkpoints, ""))
        rows = []
        for network, percent, method, checkpoint in keys:
            if cell := values.get((network, percent, method, checkpoint)):
                head = [network, f"{percent:g} %", method, *([checkpoint or "–"] if several else [])]
                rows.append([*head, str(cell["folds"]), f"{cell['AP50']:.1f}", *_gains([cell[name] for name in KINDS])])
        caption = (
            f"By how much mask AP50 (points) {'' if several else f'of the {study.printed} '}on {study.dataset.label} "
            "would rise if the errors of one kind alone were corrected, mean over the evaluated folds. TIDE (Bolya et "
            "al., ECCV 2020), right from IoU 0.5 on, background up to 0.1. The gains do not add up."
        )
        notes = source_notes(results) if (frame["checkpoint"] == "").any() else []
        if not several:
            other = "student" if study.report.model == "teacher" else "teacher"
            line = f"also_evaluate: [{other}-{study.report.checkpoint}]"
            notes.append(f"'{line}' in the study sets the {other} beside the {study.report.model}.")
        head = ["network", "labels", "method", *(["checkpoint"] if several else [])]
        return Table(caption, [*head, "folds", "AP50", *KINDS], rows, len(head), notes)


def _gains(values: list[float]) -> list[str]:
    """Return a cell per gain; a dash where AP is undefined."""
    largest = max(values)
    texts = ["–" if pd.isna(value) else f"{value:.1f}" for value in values]
    return [Bold(text) if value == largest > 0 else text for text, value in zip(texts, values, strict=True)]
