"""Parse JSON files of other tools, and name what a file is that is not JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pais_bench.annotations.validate import abbreviate
from pais_bench.errors import BenchError

FOREIGN = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    b"<": ("a web page or XML", "fetch the file itself, if need be with a login"),
}
"""How files of other kinds begin, what they are, and the remedy."""


class DuplicateKey(Exception):
    """Report a key that a mapping has twice."""


def read_json_file(path: Path, empty: str = "is empty; fetch or write the file again") -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    empty: what is said of a file without content.
    Raises BenchError for a file that cannot be read or is not JSON, and for a key that a mapping has twice: every
    parser would silently take the last.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a file that can be") from error
    start = content[:100].lstrip()
    if not start:
        raise BenchError(f"{path}: {empty}")
    for signature, (kind, remedy) in FOREIGN.items():
        if start.startswith(signature):
            raise BenchError(f"{path}: is {kind}, not JSON; {remedy}")
    try:
        return json.loads(content, object_pairs_hook=_mapping)
    except DuplicateKey as error:
        reason = f"a mapping has the key {abbreviate(error.args[0])} twice"
        raise BenchError(f"{path}: {reason}; remove one of the two") from error
    except RecursionError as error:
        raise BenchError(f"{path}: not valid JSON (nested too deeply); fetch the file again") from error
    except json.JSONDecodeError as error:
        raise BenchError(f"{path}: not valid JSON ({error}); correct it there, or fetch the file again") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not valid JSON ({error}); save it as UTF-8") from error
    except ValueError as error:  # an integer that is too long for Python to read
        raise BenchError(f"{path}: not valid JSON (a number of thousands of digits); correct it") from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping; raise DuplicateKey for a key that is there twice."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise DuplicateKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return mapping
