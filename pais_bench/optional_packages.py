"""Import packages that this Python may lack, such as a framework or a logger's client, with a remedy where it does."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from pais_bench.errors import BenchError


class MissingPackage(BenchError):
    """Report a package that this Python lacks."""


def import_package(module: str, remedy: str, needed_by: str = "") -> ModuleType:
    """Import a module; raise MissingPackage with the remedy where a package that it needs is not installed.

    needed_by is what the message begins with. A missing module of this project is raised as it is.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (fault := describe_missing(error, remedy)) is None:
            raise
        raise MissingPackage(needed_by + fault) from error


def describe_missing(error: ModuleNotFoundError, remedy: str) -> str | None:
    """Return which package this Python lacks, and the remedy; None for a module of this project."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "pais_bench"):
        return None
    if error.name != package and importlib.util.find_spec(package):
        return f"there is no module '{error.name}' in the package '{package}' of {sys.executable}; {remedy}"
    return f"the package '{package}' is not installed in {sys.executable}; {remedy}"
