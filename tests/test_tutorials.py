"""Run the tutorials as they are written: their files, their commands, and the output that they show.

Shown output is compared number by number, unless its title tells the reader that his numbers differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PROJECT = ("Snakefile", "envs", "pais_bench", "profiles", "rules", "tests")
"""What a clone has of use here; a method is written into it."""
BLOCK = re.compile(r"^```(\w+)(?: title=\"(.*?)\")?\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
VARYING = "Your numbers will differ"
"""The title of output that holds times or numbers of a training."""
PYTHON = '#!/bin/sh\nexec {python} "$@"\n'
COMMAND = """#!/bin/sh
case "$1 $*" in
  run*" -n"*) exec {python} -m pais_bench "$@" -- --config python={python} ;;
  run*) exec {python} -m pais_bench "$@" -- --cores 2 --config python={python} ;;
  *) exec {python} -m pais_bench "$@" ;;
esac
"""
"""The command of the page, which trains in this Python in place of an environment that it would build."""


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_tutorial_runs_as_written(page: Path, tmp_path: Path) -> None:
    clone, programs, home = (tmp_path / name for name in ("clone", "bin", "home"))
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        clone.mkdir(exist_ok=True)
        copy(ROOT / name, clone / name)
    programs.mkdir()
    home.mkdir()
    for name, script in (("python", PYTHON), ("pais-bench", COMMAND)):
        (programs / name).write_text(script.format(python=sys.executable))
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(clone)}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    output, blocks = "", BLOCK.findall(page.read_text())
    assert 2 * len(blocks) == page.read_text().count("```"), "a block that this test does not read"
    assert {title for _, title, _ in blocks} <= {"", VARYING}
    for language, title, text in blocks:
        if language == "bash":
            command = ["bash", "-e", "-c", text]
            done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            output = done.stdout
        elif language == "text":
            pattern = pattern_of(text, exact=title != VARYING)
            assert re.search(pattern, output, re.MULTILINE), f"{page.name} shows\n{text}\nand it is\n{output}"
        else:
            (clone / text.split()[1]).write_text(text)


def pattern_of(shown: str, *, exact: bool) -> str:
    """Return the pattern of an output from the start of a line to the end of a word.

    Widths may be others, and three dots stand for anything; where it is not exact, numbers may be others too.
    """
    pattern = re.escape(shown.strip())
    if not exact:
        pattern = re.sub(r"(\\-|−|\\\+|\+|-)?\d+(\\?\.\d+)?", r"\\S+", pattern)
    pattern = re.sub(r"(\\ )+", r"\\s+", pattern).replace(r"\.\.\.", r"[\s\S]*?")
    return rf"^{pattern}(?!\S)"
