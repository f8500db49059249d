"""Time the overhead of a job of the workflow: jobs that only touch a file, through the shipped profiles.

python benchmarks/overhead.py [--jobs 1000] [--plan 5000]         this machine, profiles/local
python benchmarks/overhead.py --slurm [--jobs 20]                 a real SLURM of this one node, profiles/slurm

Prints milliseconds per job: the time of all jobs minus that of a workflow of one job, divided by their number. The
rules are shell rules with a log, like ours. Under SLURM it also prints how long a job holds its allocation. --plan also
times the planning of so many jobs.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SNAKEFILE = """
rule all:
    input: expand("files/{i}.txt", i=range(int(config["jobs"])))

rule touch:
    output: "files/{i}.txt"
    log: "logs/{i}.log"
    shell: "touch {output:q} 2>&1 | tee -i {log:q}"
"""


def main() -> None:
    """Run the jobs, and print the overhead of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="jobs to run (default: 1000, under SLURM 20)")
    parser.add_argument("--plan", type=int, default=0, help="jobs to plan in addition")
    parser.add_argument("--slurm", action="store_true", help="use a SLURM that is started for this")
    arguments = parser.parse_args()
    jobs = arguments.jobs or (20 if arguments.slurm else 1000)
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # munge refuses a socket below a folder that others cannot enter
        if arguments.plan:
            seconds = run_workflow(folder / "plan", arguments.plan, "--dry-run")
            print(f"{arguments.plan} jobs planned in {seconds:.1f} s")
        if arguments.slurm:
            with slurm(folder / "slurm"):
                measure(folder, jobs, "--workflow-profile", str(write_profile(folder / "profile")))
                print_allocations(jobs)
        else:
            measure(folder, jobs, "--workflow-profile", str(ROOT / "profiles/local"))


def measure(folder: Path, jobs: int, *options: str) -> None:
    """Run one job and many, and print the difference per job."""
    one, many = run_workflow(folder / "one", 1, *options), run_workflow(folder / "many", jobs, *options)
    print(f"one job {one:.1f} s, {jobs} jobs {many:.1f} s: {1000 * (many - one) / (jobs - 1):.1f} ms a job")


def run_workflow(folder: Path, jobs: int, *options: str) -> float:
    """Run a workflow of so many jobs in a folder of its own, and return its seconds."""
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--cores", "2", *options]
    command += ["--snakefile", str(folder / "Snakefile"), "--config", f"jobs={jobs}"]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode or ("--dry-run" not in options and len(list((folder / "files").iterdir())) != jobs):
        sys.exit(done.stdout + done.stderr)
    return seconds


def write_profile(folder: Path) -> Path:
    """Write the shipped profile for a cluster without accounting, with short waits, and return its folder."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    profile |= {"latency-wait": 5, "slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1}
    profile |= {"slurm-logdir": str(folder / "logs"), "slurm-no-account": True}
    profile["default-resources"] |= {"mem_mb": 1000}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


@contextmanager
def slurm(home: Path) -> Iterator[None]:
    """Run a SLURM of one node, which the commands of this process use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = min(free.getsockname()[1], 60000)
    script = str(ROOT / "tests/slurm/cluster.sh")
    subprocess.run([script, "up", str(home), str(port)], check=True, timeout=60)
    os.environ |= {"SLURM_CONF": str(home / "slurm.conf"), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    try:
        yield
    finally:
        subprocess.run([script, "down", str(home)], check=True, timeout=60)


def print_allocations(jobs: int) -> None:
    """Print how long the last jobs held their allocation, in SLURM's whole seconds."""
    scontrol = ["scontrol", "--oneliner", "show", "job"]
    output = subprocess.run(scontrol, capture_output=True, text=True, check=True).stdout
    lines = sorted(output.splitlines(), key=lambda line: int(re.findall(r"^JobId=(\d+)", line)[0]))[-jobs:]
    times = [
        [datetime.fromisoformat(re.findall(rf" {key}=(\S+)", line)[0]) for key in ("StartTime", "EndTime")]
        for line in lines
    ]
    seconds = sorted((end - begin).total_seconds() for begin, end in times)
    print(f"a job held its allocation for {seconds[len(seconds) // 2]:.0f} s (median), {seconds[-1]:.0f} s at most")


if __name__ == "__main__":
    main()
