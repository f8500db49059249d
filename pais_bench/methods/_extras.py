"""Import a package that an extra of pais-bench brings, or say how to install it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from pais_bench.errors import BenchError


def import_extra(module: str, extra: str) -> Any:
    """Import a module; raise BenchError that names the extra and this Python where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"{extra}: the package '{error.name}' is not installed in this environment; install the extra "
            f"'pais-bench[{extra}]' for {sys.executable}"
        ) from error
