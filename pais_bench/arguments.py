"""What can be said on the command line?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from pais_bench import __version__, plugins
from pais_bench.study_file import shipped

EXAMPLES = """examples, in the order of the workflow (a study is a YAML file or the name of a shipped one):
  pais-bench prepare  demo
  pais-bench split    demo --percent 10 --fold 1
  pais-bench train    demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench predict  demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench evaluate demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench report   demo

all of them at once, in parallel and only what is missing:
  snakemake --workflow-profile profiles/local --config study=demo
"""


def parser(about: str | None, verbs: Mapping[str, object]) -> argparse.ArgumentParser:
    """Give the parser of the six verbs, whose docstrings are their help, and of those on the shelf.

    A verb of the shelf sets `run`, to be called with the arguments.
    """
    parser = argparse.ArgumentParser(
        prog="pais-bench", description=about, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    chosen = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in verbs.items():
        one = chosen.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        one.add_argument("study", metavar="STUDY", help=f"path of a study file, or one of {shipped()}")
        one.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
        if name not in ("prepare", "report"):
            one.add_argument("--percent", type=float, required=True, help="percent of the images that is labelled")
            one.add_argument("--fold", type=int, required=True, help="fold, which is also the seed")
        if name == "prepare":
            one.add_argument("--repair", action="store_true", help="drop faulty records of a dataset, and list them")
        if name in ("train", "predict", "evaluate"):
            one.add_argument("--network", required=True, help="label of a network in the study")
            one.add_argument("--method", required=True, help="label of a method in the study")
        if name in ("predict", "evaluate"):
            one.add_argument("--weights", help="teacher-last, student-best, ... (default: what the tables print)")
        if name in ("train", "predict"):
            one.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
            one.add_argument("--accelerator", default="auto", help="cpu, cuda, mps, or auto (default)")
        if name == "train":
            one.add_argument("--devices", type=int, default=1, help="devices per node (default: 1)")
            one.add_argument("--nodes", type=int, default=1, help="nodes (default: 1)")
            told = "parts that a device learns its share of a batch in: less memory, the same step (default: 1)"
            one.add_argument("--accumulate", type=int, default=1, help=told)
            one.add_argument("--workers", type=int, default=0, help="loader processes; changes no number (default: 0)")
    for name in plugins.names("verbs"):
        plugin = plugins.load("verbs", name)
        told = (plugin.__doc__ or "").strip()
        one = chosen.add_parser(name.replace("_", "-"), help=told.splitlines()[0], description=told)
        plugin.add_arguments(one)
        one.set_defaults(run=plugin.run)
    return parser
