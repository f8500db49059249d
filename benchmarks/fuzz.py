"""Give mutated inputs of every kind to the package in a few processes, and report each that it does not survive.

python benchmarks/fuzz.py [--inputs 100000] [--processes 2] [--timeout 20] [--log fuzz.jsonl] [KIND ...]

tests/trials.py has the kinds and the laws. A finding is an input that raises, breaks a law, hangs, or kills its
process. Blocks of seeds that the log has are not run again, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from trials import TRIALS

BLOCK = 100
MEMORY = 6 * 2**30
"""Bytes of address space of a process: an input that needs more is a finding."""
FORK = multiprocessing.get_context("fork")


class Worker:
    """Run blocks in a process of its own, and remember which seed has run since when."""

    def __init__(self) -> None:
        """Start the process."""
        self.connection, theirs = FORK.Pipe()
        self.process = FORK.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.block: dict[str, Any] = {}
        self.seed, self.since = 0, 0.0

    def start(self, block: dict[str, Any]) -> None:
        """Hand over a block; its seeds from `next` on are run."""
        self.block, self.seed, self.since = block, block["next"], time.monotonic()
        self.connection.send((block["kind"], block["next"], block["stop"]))

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def work(connection: Connection) -> None:
    """Run the seeds of blocks until the other end is closed; answer (seed, outcome, finding) for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # Pillow's, about damaged tags
    with tempfile.TemporaryDirectory() as folder:
        trials = {}
        while True:
            try:
                kind, start, stop = connection.recv()
            except EOFError:
                return
            if kind not in trials:
                trials[kind] = TRIALS[kind](Path(folder) / kind)
            for seed in range(start, stop):
                try:
                    answer = seed, trials[kind].run(seed), ""
                except Exception as error:  # any other error is a finding
                    answer = seed, "finding", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                connection.send(answer)


def record(worker: Worker, seed: int, outcome: str, finding: str = "") -> None:
    """Add the outcome of a seed to its block."""
    block, now = worker.block, time.monotonic()
    block["outcomes"][outcome] = block["outcomes"].get(outcome, 0) + 1
    block["slowest"] = max(block["slowest"], [round(now - worker.since, 3), seed])
    if finding:
        block["findings"].append([seed, finding])
        tqdm.write(f"{block['kind']} seed {seed}: {finding}", file=sys.stderr)
    worker.seed = block["next"] = seed + 1
    worker.since = now


def run(blocks: deque[dict[str, Any]], processes: int, timeout: float, log: Path) -> list[dict[str, Any]]:
    """Run blocks, and append each to the log once it is done."""
    done, workers = [], [Worker() for _ in range(min(processes, len(blocks)))]
    total = sum(block["stop"] - block["next"] for block in blocks)
    with log.open("a") as file, tqdm(total=total, mininterval=2) as bar:
        for worker in workers:
            worker.start(blocks.popleft())
        while workers:
            ready = wait([worker.connection for worker in workers], timeout=1)
            for index, worker in enumerate(list(workers)):
                try:
                    if worker.connection in ready:
                        record(worker, *worker.connection.recv())
                        bar.update()
                    elif time.monotonic() - worker.since > timeout:
                        raise TimeoutError
                except (EOFError, OSError) as error:
                    worker.stop()
                    reason = (
                        "hangs"
                        if isinstance(error, TimeoutError)
                        else f"dies of signal {-(worker.process.exitcode or 0)}"
                    )
                    record(worker, worker.seed, "finding", reason)
                    bar.update()
                    workers[index], block = Worker(), worker.block
                    if block["next"] < block["stop"]:
                        workers[index].start(block)
                    else:
                        workers[index].block = block
            for worker in list(workers):
                if worker.block["next"] == worker.block["stop"]:
                    file.write(json.dumps(worker.block) + "\n")
                    file.flush()
                    done.append(worker.block)
                    if blocks:
                        worker.start(blocks.popleft())
                    else:
                        worker.stop()
                        workers.remove(worker)
    return done


def main() -> int:
    """Print the outcomes of every kind, its slowest input, and the findings; return 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(TRIALS)} (default: all)")
    parser.add_argument("--inputs", type=int, default=100_000, help="number of all inputs")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20, help="seconds that an input may take")
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"))
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(TRIALS):
        parser.error(f"no kind of input: {', '.join(sorted(unknown))}")
    kinds = arguments.kinds or list(TRIALS)
    known = [json.loads(line) for line in arguments.log.read_text().splitlines()] if arguments.log.exists() else []
    finished = {(block["kind"], block["start"], block["stop"]) for block in known}
    stop = arguments.first + arguments.inputs // len(kinds)
    blocks = deque(
        {
            "kind": kind,
            "start": start,
            "next": start,
            "stop": end,
            "outcomes": {},
            "findings": [],
            "slowest": [0.0, start],
        }
        for start in range(arguments.first, stop, BLOCK)
        for kind in kinds
        if (kind, start, end := min(start + BLOCK, stop)) not in finished
    )
    known += run(blocks, arguments.processes, arguments.timeout, arguments.log)
    for kind in kinds:
        mine = [block for block in known if block["kind"] == kind]
        outcomes = sum((Counter(block["outcomes"]) for block in mine), Counter())
        seconds, seed = max(block["slowest"] for block in mine)
        print(f"{kind}: {dict(outcomes)}; the slowest took {1000 * seconds:.0f} ms, seed {seed}")
        for seed, finding in [entry for block in mine for entry in block["findings"]]:
            print(f"  seed {seed}: {finding}")
    return 1 if any(block["findings"] for block in known if block["kind"] in kinds) else 0


if __name__ == "__main__":
    sys.exit(main())
