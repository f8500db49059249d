"""Run Snakemake in a forked process, which costs no import."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path


def snakemake(words: Sequence[str], folder: Path, output: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with environment variables in a folder; stdout, which goes through a file, has stderr too."""
    from snakemake import cli

    if not (pid := os.fork()):
        code = 1
        try:
            with output.open("w", buffering=1) as file:
                for descriptor in (1, 2):
                    os.dup2(file.fileno(), descriptor)
                sys.stdout = sys.stderr = file
                os.chdir(folder)
                os.environ.update(variables)
                sys.path.insert(0, str(folder))  # a copy of the package there is another one
                for name in [name for name in sys.modules if name.partition(".")[0] == "pais_bench"]:
                    del sys.modules[name]
                warnings.resetwarnings()
                cli.main(list(words))
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return subprocess.CompletedProcess(words, code, output.read_text())
