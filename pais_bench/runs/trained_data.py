"""Record which data a run was trained on, and keep the files of a run on other data apart.

data.json in a run's folder has the content of the dataset (annotations/sources.py). A training on other content moves
what is there into a folder data-CONTENT inside, and takes back what it finds of its own, so that nothing is lost where
an edit is undone. A run without the file, an imported one, passes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pais_bench.errors import BenchError
from pais_bench.runs.files import DATA, LOCK
from pais_bench.whole_file import write_text


def trained_on(folder: Path) -> str | None:
    """Return the content that a run's folder records; None where it records none."""
    try:
        content = json.loads((folder / DATA).read_text(encoding="utf-8"))["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(content)


def is_other(folder: Path, content: str | None) -> bool:
    """Return whether a run was trained on other content than this."""
    recorded = trained_on(folder)
    return None not in (recorded, content) and recorded != content


def kept(folder: Path, content: str) -> Path:
    """Return where the files of a run on this content are kept while its folder has those of another."""
    return folder / f"data-{content[:8]}"


def of_content(folder: Path, content: str | None) -> Path:
    """Return where the files of a run on this content are: its folder, or the one in it where they are kept."""
    return kept(folder, content) if content is not None and is_other(folder, content) else folder


def require_same(folder: Path, content: str | None) -> None:
    """Raise BenchError where a run was trained on other content than this."""
    if is_other(folder, content):
        raise BenchError(
            f"{folder}: trained on other data than the prepared one ({str(trained_on(folder))[:8]}, now "
            f"{str(content)[:8]}); run `pais-bench train` again"
        )


def enter(folder: Path, content: str | None) -> str:
    """Record in a run's folder that it trains on this content; move files of other content aside, and say so.

    Returns the sentence, or nothing.
    """
    if content is None:
        return ""
    recorded, back = trained_on(folder), kept(folder, content)
    said = there = ""
    if recorded not in (None, content):
        aside = kept(folder, str(recorded))
        aside.mkdir(exist_ok=True)
        _move(folder, aside)
        said = f"trained on other data before, training anew; what it had is kept in {aside}"
        there = f", and what the run had is kept in {aside}"
    write_text(folder / DATA, json.dumps({"content": content}) + "\n")
    if (back / DATA).exists():  # also where an earlier call was ended while it moved this back
        _move(back, folder)
        said = f"the data is as it was before; continuing from {back}{there}"
    return said


def _move(source: Path, target: Path) -> None:
    """Move the files of a folder, the record last, so that a move that was interrupted is taken up again."""
    files = [path for path in source.iterdir() if path.is_file() and path.name not in (LOCK, DATA)]
    for path in [*files, source / DATA]:
        if path.exists():
            os.replace(path, target / path.name)
