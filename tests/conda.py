"""Replace conda for Snakemake: an environment is a venv, and no channel is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONDA = """\
#!/bin/sh
case "$*" in
*info*) echo '{"conda_prefix": "HOME", "platform": "linux-64"}' ;;
*channel_priority*) echo '{"get": {"channel_priority": "strict"}}' ;;
*create*)
  while [ "$1" != --prefix ]; do shift; done
  PYTHON -m venv --without-pip "$2" ;;
*) echo conda 24.7.1 ;;
esac
"""
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


def write_fake_conda(home: Path) -> str:
    """Write a fake conda into a new folder, and return the PATH that finds it first."""
    (home / "bin").mkdir(parents=True)
    (home / "bin/activate").write_text(ACTIVATE)
    command = home / "bin/conda"
    command.write_text(CONDA.replace("HOME", str(home)).replace("PYTHON", sys.executable))
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"
