"""Mutate small valid inputs at random: nodes of JSON or YAML, bytes of files, lines of texts."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

HEIGHT, WIDTH = 9, 11
TRIANGLE = [1, 1.5, 8, 1, 6.25, 7]
MASKS: tuple[tuple[Any, list[float], float], ...] = (
    ([TRIANGLE], [1, 1, 7, 6], 20.5),
    ({"size": [HEIGHT, WIDTH], "counts": [10, 5, 84]}, [1, 1, 1, 5], 5),
    ({"size": [HEIGHT, WIDTH], "counts": ":59O0j1"}, [1, 0, 10, 9], 71),
    ([TRIANGLE, [0, 0, 3, 0, 3, 3, 0, 3]], [0, 0, 8, 7], 29),
)
"""Segmentations, and box and area of each."""
VALID: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 30, "file_name": "a.png", "height": HEIGHT, "width": WIDTH, "license": 1},
        {"id": 5, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
    ],
    "annotations": [
        {
            "id": number,
            "image_id": (30, 5)[number % 2],
            "category_id": 7,
            "iscrowd": number // 3,
            "area": area,
            "bbox": box,
            "segmentation": segmentation,
        }
        for number, (segmentation, box, area) in enumerate(MASKS)
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}],
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 7, 30, 99, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e308, -1e9, float("nan"), float("inf"), "", "0", "id", "\ud800", "\x00", "\n", "é", "a.png"),
    *("PPPPPPPPPPPP1", "?" * 40, ":5", "o" * 9, [], {}, [[]], [{}], {"size": [9, 11], "counts": "S3"}),
    *([99], [0, 99], [2**32 - 1, 100], {"counts": []}, [1, 1, 2, 2, 3, 3], [[1, 1, 2, 2, 3, 1e5]]),
)


def mutate(rng: random.Random, valid: Any = VALID) -> bytes:
    """Return JSON with one to four mutated nodes, and rarely mutated bytes."""
    text = json.dumps(mutate_nodes(valid, rng)).encode()
    if rng.random() < 0.1:
        start = rng.randrange(len(text) + 1)
        text = text[:start] + rng.choice((b"", b"\xff", b"\x00" + text[start:], text[start + 1 :]))
    return text


def mutate_nodes(valid: Any, rng: random.Random) -> Any:
    """Return a copy with one to four mutated nodes that JSON can express."""
    while True:
        content = copy.deepcopy(valid)
        try:
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                mutate_node(content, rng)
            json.dumps(content)
        except RecursionError:  # nested deeper than Python can write it
            continue
        return content


def mutate_node(content: Any, rng: random.Random) -> None:
    """Mutate one node below the root, if there is any."""
    if not content:
        return
    parent: Any = content
    key: Any = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    while isinstance(parent.get(key) if isinstance(parent, dict) else parent[key], (dict, list)):
        inner = parent[key]
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys or rng.random() < 0.15:
            break
        parent, key = inner, rng.choice(keys)
    if isinstance(parent, dict) and key not in parent:
        return
    kind = rng.choice(("replace", "replace", "delete", "nest", "duplicate", "swap"))
    if kind == "replace":
        parent[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == "delete":
        del parent[key]
    elif kind == "nest":
        for _ in range(rng.choice((1, 1, 3, 300))):
            parent[key] = rng.choice(([parent[key]], {"id": parent[key]}))
    elif kind == "duplicate" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == "duplicate":
        parent[rng.choice(("id", "extra", "size"))] = copy.deepcopy(parent[key])
    else:
        other = rng.choice(VALID["annotations"])
        parent[key] = copy.deepcopy(other[rng.choice(list(other))])


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return a file that is cut, or has changed, missing, repeated or foreign bytes."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 1, 4, 100)))
        middle = rng.choice((b"", rng.randbytes(end - start), content[start:end] * 2, b"\x00" * 4, b"\xff" * 4))
        content = content[:start] if rng.random() < 0.15 else content[:start] + middle + content[end:]
    return content


def mutate_lines(lines: list[str], rng: random.Random) -> bytes:
    """Return a text with lines that are repeated, missing, foreign or written otherwise, in any encoding."""
    lines = list(lines)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        position = rng.randrange(len(lines) + 1)
        line = rng.choice(
            (*lines, "", " ", "0", "-1", "99999", "1e3", "٣", "../x.png", "a/b.png", "\x00", "é", "9" * 30)
        )
        lines[position : position + rng.choice((0, 1))] = [rng.choice(("", " ", "./", "#")) + line]
    text = rng.choice(("\n", "\n", "\r\n", ",", " ")).join(lines)
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")), errors="replace")
