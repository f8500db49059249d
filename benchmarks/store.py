"""Measure building, opening, reading and sharing the store of a dataset of COCO's size, beside pycocotools.

python benchmarks/store.py [instances.json] writes the file if it is absent (600 MB), and the store beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

WORKERS, READS = 4, 2_000  # loader processes, and random images that each of them reads


def main(source: Path) -> None:
    """Measure every step in a process of its own, and print a table."""
    if not source.is_file():
        from coco_sized import write

        write(source)
    folder = source.with_suffix(".store")
    measured = {}
    for name in MEASURES:
        command = [sys.executable, __file__, name, str(source), str(folder)]
        measured[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    load, build, read, workers = (measured[name] for name in MEASURES)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{source.stat().st_size / 1e6:.0f} MB of JSON, {size / 1e6:.0f} MB of store\n")
    print("| What | Wall | CPU | More memory |\n|---|--:|--:|--:|")
    rows = {
        "pycocotools: COCO(file)": load,
        "build the store: read, check, write (memory at its peak)": {**build, "memory": build["peak"]},
        "open the store, read one image's annotations": read,
        "every further image": {**read, "wall": read["again"], "cpu": read["again"], "memory": 0},
        f"{WORKERS} workers, {READS} random images each: USS together": {**workers, "memory": workers["private"]},
        "the same: PSS together, without the mapped files": {**workers, "memory": workers["other"]},
        "the same: PSS of the mapped files, clean pages of the page cache": {**workers, "memory": workers["file"]},
    }
    for name, row in rows.items():
        print(f"| {name} | {_seconds(row['wall'])} | {_seconds(row['cpu'])} | {row['memory'] / 1e6:.0f} MB |")
    print(f"\nopening and reading is {load['wall'] / read['wall']:.0f} times faster than loading (target 50);")
    print(f"building takes {build['wall'] / load['wall']:.2f} times as long (target at most 3),")
    print(f"{build['cpu'] / load['cpu']:.2f} times in CPU time")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def _load(source: Path, folder: Path) -> dict[str, float]:
    from pycocotools.coco import COCO

    def load() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(source))

    return _measured(load)


def _build(source: Path, folder: Path) -> dict[str, float]:
    from pais_bench.annotations.store import write_store
    from pais_bench.datasets.coco import read

    return _measured(lambda: write_store(folder, "coco", {"train": read(source, source.parent)}))


def _read(source: Path, folder: Path) -> dict[str, float]:
    from pais_bench.annotations.store import Store

    image_id = _random_ids(folder, 1)[0]
    image_ids = _random_ids(folder, READS)

    def read() -> Any:
        store = Store.open(folder, "train")
        return store, store.annotations(image_id)

    first = _measured(read)
    store, start = Store.open(folder, "train"), time.perf_counter()
    for image_id in image_ids:
        store.annotations(image_id)
    return {**first, "again": (time.perf_counter() - start) / READS}


def _share(source: Path, folder: Path) -> dict[str, float]:
    from pais_bench.annotations.store import Store

    store, context = Store.open(folder, "train"), multiprocessing.get_context("fork")
    steps, queue = context.Barrier(WORKERS), context.Queue()
    workers = [context.Process(target=_work, args=(store, steps, queue, seed)) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    results = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    total = {key: sum(result[key] for result in results) for key in results[0]}
    return {**total, "wall": total["wall"] / WORKERS}


def _work(store: Any, steps: Barrier, queue: Any, seed: int) -> None:
    """Read random images, and report the memory that it took while all workers are running."""
    image_ids = np.random.default_rng(seed).choice(store.id_column, READS)
    steps.wait()
    before, start, cpu_start = _memory(), time.perf_counter(), time.process_time()
    steps.wait()
    for image_id in image_ids.tolist():
        store.annotations(image_id)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    steps.wait()
    after = _memory()
    more = dict(zip(("file", "other", "private"), (b - a for a, b in zip(before, after, strict=True)), strict=True))
    queue.put({"wall": wall, "cpu": cpu, **more})
    steps.wait()


def _measured(work: Callable[[], Any]) -> dict[str, float]:
    """Return wall and CPU seconds, and the growth of the resident memory in bytes, at the end and at the peak."""
    before, start, cpu_start = _status("VmRSS"), time.perf_counter(), time.process_time()
    result = work()
    measured = {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu_start,
        "memory": _status("VmRSS") - before,
    }
    del result
    return {**measured, "peak": _status("VmHWM") - before}


def _random_ids(folder: Path, count: int) -> list[int]:
    """Sample image ids in another process, so that this one has not read the store."""
    script = (
        "import sys, pathlib, numpy as np; from pais_bench.annotations.store import Store;"
        "ids = Store.open(pathlib.Path(sys.argv[1]), 'train').id_column;"
        "print(*np.random.default_rng(0).choice(ids, int(sys.argv[2])))"
    )
    process = subprocess.run([sys.executable, "-c", script, folder, str(count)], check=True, stdout=subprocess.PIPE)
    return [int(word) for word in process.stdout.split()]


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _memory() -> tuple[int, int, int]:
    """Return PSS of mapped files, PSS of other memory, and USS of this process, in bytes."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        key, size = line.split()[:2]
        sizes[key] = 1024 * int(size)
    return sizes["Pss_File:"], sizes["Pss_Anon:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"]


MEASURES = {"load": _load, "build": _build, "read": _read, "share": _share}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in MEASURES:
        print(json.dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main(Path(sys.argv[1] if sys.argv[1:] else os.path.join(tempfile.gettempdir(), "coco_sized.json")))
