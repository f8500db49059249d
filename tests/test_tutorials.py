"""Run the tutorials as they are written: their files, their commands, and the output that they show."""

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
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.DOTALL)
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
    output = ""
    for language, text in BLOCK.findall(page.read_text()):
        if language == "bash":
            command = ["bash", "-e", "-c", text]
            done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            output = done.stdout
        elif language == "text":
            assert re.search(pattern_of(text), output), f"{page.name} shows\n{text}\nand it is\n{output}"
        else:
            (clone / text.split()[1]).write_text(text)


def pattern_of(shown: str) -> str:
    """Return the pattern of an output: numbers and widths may be others, and three dots stand for anything."""
    pattern = re.sub(r"(\\-|−|\\\+|\+|-)?\d+(\\?\.\d+)?", r"\\S+", re.escape(shown.strip()))
    return re.sub(r"(\\ )+", r"\\s+", pattern).replace(r"\.\.\.", r"[\s\S]*?")
