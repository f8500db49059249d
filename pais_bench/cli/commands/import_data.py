"""Convert labels of other tools to COCO instances files, one for each subset; the photos stay where they are.

File names are relative to FOLDER, which is then the dataset.root of a study, with "." as the folder of the images.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pais_bench.cli import context
from pais_bench.converters.convert import convert, find_format, formats


def add_arguments(parser: ArgumentParser) -> None:
    """Add the folder, the file to write, the format, and the class of formats without one."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="holds the photos and their labels")
    text = "COCO file; of several subsets FILE-train.json, FILE-val.json, ..."
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=text)
    parser.add_argument("--format", choices=formats(), help="format of the labels (default: it is found)")
    text = "class of all objects where the format has none (default: object)"
    parser.add_argument("--class-name", default="object", metavar="NAME", help=text)
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(arguments: Namespace) -> None:
    """Write the files, and print what was found and left out; raise BenchError for a fault of the labels."""
    folder = arguments.folder
    format_ = arguments.format or find_format(folder)
    context.print_progress(f"{folder}: labels of the format {format_}")
    converted = convert(folder, format_, arguments.class_name, arguments.out, arguments.force, context.print_progress)
    print("\n".join(converted.lines))
