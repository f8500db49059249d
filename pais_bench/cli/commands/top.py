"""Show the runs of a study while another process trains them, here or on a cluster, until all are done.

Where standard output is no terminal, the table is printed once. The command only reads.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from pais_bench.cli import context
from pais_bench.machine.gpu import gpu_lines
from pais_bench.workflow import view
from pais_bench.workflow.progress import Progress

SECONDS = 2.0
"""Between two looks at the runs."""
WIDTH = 120
"""Characters of a line where there is no terminal."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study and the results folder."""
    context.add_study(parser)
    context.add_results(parser)


def run(arguments: Namespace) -> None:
    """Show the table, and the GPUs of this machine below it."""
    from rich.console import Console
    from rich.live import Live

    progress = Progress(context.read_study(arguments), arguments.results)
    if not view.is_terminal():
        runs = progress.read()
        Console(width=WIDTH).print(view.table(runs, len(runs), "\n".join(gpu_lines())))
        return
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            runs, gpus = progress.read(), gpu_lines()
            live.update(view.table(runs, console.height - 8 - len(gpus), "\n".join(gpus)), refresh=True)
            if all(training.state == "done" for training in runs):
                return
            time.sleep(SECONDS)
