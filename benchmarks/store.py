"""What does it cost to build, open, read and share the store of a dataset of COCO's size? pycocotools is the measure.

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
    """Measure each thing in a process of its own, and print a table."""
    if not source.is_file():
        from coco_sized import write

        write(source)
    folder = source.with_suffix(".store")
    found = {}
    for name in MEASURES:
        command = [sys.executable, __file__, name, str(source), str(folder)]
        found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    load, build, read, workers = (found[name] for name in MEASURES)
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
    for name, one in rows.items():
        print(f"| {name} | {_seconds(one['wall'])} | {_seconds(one['cpu'])} | {one['memory'] / 1e6:.0f} MB |")
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
    from pais_bench.datasets.coco import read
    from pais_bench.store import write_store

    return _measured(lambda: write_store(folder, "coco", {"train": read(source, source.parent)}))


def _read(source: Path, folder: Path) -> dict[str, float]:
    from pais_bench.store import Store

    image = _random_ids(folder, 1)[0]
    chosen = _random_ids(folder, READS)

    def read() -> Any:
        store = Store.open(folder, "train")
        return store, store.annotations(image)

    found = _measured(read)
    store, start = Store.open(folder, "train"), time.perf_counter()
    for number in chosen:
        store.annotations(number)
    return {**found, "again": (time.perf_counter() - start) / READS}


def _share(source: Path, folder: Path) -> dict[str, float]:
    from pais_bench.store import Store

    store, context = Store.open(folder, "train"), multiprocessing.get_context("fork")
    steps, queue = context.Barrier(WORKERS), context.Queue()
    workers = [context.Process(target=_work, args=(store, steps, queue, seed)) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    total = {key: sum(one[key] for one in found) for key in found[0]}
    return {**total, "wall": total["wall"] / WORKERS}


def _work(store: Any, steps: Barrier, queue: Any, seed: int) -> None:
    """Read random images, and tell how much memory it took while all workers are still there."""
    chosen = np.random.default_rng(seed).choice(store.id_column, READS)
    steps.wait()
    before, start, busy = _shares(), time.perf_counter(), time.process_time()
    steps.wait()
    for number in chosen.tolist():
        store.annotations(number)
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    steps.wait()
    after = _shares()
    more = dict(zip(("file", "other", "private"), (b - a for a, b in zip(before, after, strict=True)), strict=True))
    queue.put({"wall": wall, "cpu": cpu, **more})
    steps.wait()


def _measured(work: Callable[[], Any]) -> dict[str, float]:
    """Give wall and CPU seconds, and by how many bytes the resident memory is larger at the end, and at its peak."""
    before, start, busy = _status("VmRSS"), time.perf_counter(), time.process_time()
    kept = work()
    found = {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - busy,
        "memory": _status("VmRSS") - before,
    }
    del kept
    return {**found, "peak": _status("VmHWM") - before}


def _random_ids(folder: Path, count: int) -> list[int]:
    """Draw image ids in another process, so that this one has not touched the store."""
    script = (
        "import sys, pathlib, numpy as np; from pais_bench.store import Store;"
        "ids = Store.open(pathlib.Path(sys.argv[1]), 'train').id_column;"
        "print(*np.random.default_rng(0).choice(ids, int(sys.argv[2])))"
    )
    done = subprocess.run([sys.executable, "-c", script, folder, str(count)], check=True, stdout=subprocess.PIPE)
    return [int(word) for word in done.stdout.split()]


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _shares() -> tuple[int, int, int]:
    """Give this process's share in bytes of mapped files and of other memory, and what it alone holds of either."""
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
