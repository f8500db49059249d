"""Parse the command line and run one command, a file of cli/commands."""

from __future__ import annotations

import argparse
import io
import os
import select
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pais_bench import __version__, plugins, provenance
from pais_bench.cli.prepared import require_folder
from pais_bench.errors import BenchError, describe_fault
from pais_bench.optional_packages import describe_missing

WORKFLOW = ("prepare", "split", "train", "predict", "evaluate", "report")
"""The commands that are rules of the workflow, in its order; `--help` lists them first."""

EXAMPLES = """examples, in the order of the workflow (a study is a YAML file or the name of a shipped one):
  pais-bench prepare  demo
  pais-bench split    demo --percent 1 --fold 1
  pais-bench train    demo --percent 1 --fold 1 --network mask_rcnn --method pais
  pais-bench predict  demo --percent 1 --fold 1 --network mask_rcnn --method pais
  pais-bench evaluate demo --percent 1 --fold 1 --network mask_rcnn --method pais
  pais-bench report   demo

all of them at once, in parallel and only what is missing:
  pais-bench run      demo
"""


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Return the parser of a command, or of all if there is none of that name; its module is `arguments.module`.

    A workflow starts hundreds of commands, and each would import the modules of all others.
    """
    parser = argparse.ArgumentParser(
        prog="pais-bench",
        description="Benchmark semi-supervised instance segmentation, from raw data to the tables of a paper.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = [*WORKFLOW, *(name for name in plugins.names("commands") if name not in WORKFLOW)]
    for name in [name for name in names if _spelt(name) == command] or names:
        module = plugins.load("commands", name)
        text = (module.__doc__ or "").strip()
        subparser = commands.add_parser(_spelt(name), help=text.splitlines()[0], description=text)
        module.add_arguments(subparser)
        subparser.set_defaults(module=module)
    return parser


def _spelt(name: str) -> str:
    return name.replace("_", "-")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done | 85: a training saved and stopped before its last step | 2: a fault, described on stderr in one sentence |
    1: the reader of standard output has closed the pipe, as `head` does, or `doctor` has found something wrong |
    130: ended by Ctrl-C. Commands that do what they can of many inputs return 2 where they left one out.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding
        status = run_command(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe, such as one to a loader process
        # Python flushes the buffer at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def run_command(argv: list[str]) -> int:
    """Run the command and describe a fault of the input or the machine; a fault of the program is raised."""
    # What follows -- is for Snakemake; argparse cannot tell its flags from those of the command.
    own = argv.index("--") if argv[:1] == ["run"] and "--" in argv else len(argv)
    arguments = build_parser(*argv[:1]).parse_args(argv[:own], argparse.Namespace(flags=argv[own + 1 :]))
    try:
        require_folder(getattr(arguments, "results", Path()))
        return arguments.module.run(arguments) or 0
    except KeyboardInterrupt:
        print(f"pais-bench {arguments.command}: ended by Ctrl-C; run the same command to continue", file=sys.stderr)
        return 130
    except (BenchError, ModuleNotFoundError, OSError, MemoryError, RuntimeError) as error:
        fault = _describe(error)
        if fault is None:
            raise
    print(f"pais-bench {arguments.command}: error: {fault}", file=sys.stderr)
    if arguments.command == "train":
        command = shlex.join([sys.executable, "-m", "pais_bench", *argv])
        print(f"once that is fixed, this continues from the last checkpoint: {command}", file=sys.stderr)
    return 2


def _describe(error: Exception) -> str | None:
    """Return the fault and its remedy in one sentence; None for a fault of the program."""
    if not isinstance(error, ModuleNotFoundError):
        return str(error) if isinstance(error, BenchError) else describe_fault(error)
    training = (error.name or "").partition(".")[0] in ("torch", "torchvision", "lightning_fabric")
    command = provenance.install_command("torchvision" if training else "workflow")
    return describe_missing(
        error, f"install it there, or use the Python that `{command}` prints, which has all of them"
    )


def _stdout_is_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
