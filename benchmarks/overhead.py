"""What does a job of the workflow cost beside its work? Jobs that only touch a file, through the shipped profiles.

python benchmarks/overhead.py [--jobs 1000] [--plan 5000]         this machine, profiles/local
python benchmarks/overhead.py --slurm [--jobs 20]                 a real SLURM of this one node, profiles/slurm

Prints milliseconds a job: the time of all jobs, less that of a workflow of one, by their number. The rules are shell
rules with a log, as all of ours are. Under SLURM it prints besides how long a job holds its allocation. --plan also
plans so many jobs.
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
    input: expand("made/{i}.txt", i=range(int(config["jobs"])))

rule made:
    output: "made/{i}.txt"
    log: "logs/{i}.log"
    shell: "touch {output:q} 2>&1 | tee -i {log:q}"
"""


def main() -> None:
    """Run the jobs, and print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="jobs to run (default: 1000, under SLURM 20)")
    parser.add_argument("--plan", type=int, default=0, help="jobs to plan besides")
    parser.add_argument("--slurm", action="store_true", help="through a SLURM that is started for it")
    given = parser.parse_args()
    jobs = given.jobs or (20 if given.slurm else 1000)
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # munge wants no folder of others above its socket
        if given.plan:
            print(f"{given.plan} jobs planned in {workflow(folder / 'plan', given.plan, '--dry-run'):.1f} s")
        if given.slurm:
            with slurm(folder / "slurm"):
                measure(folder, jobs, "--workflow-profile", str(quick(folder / "profile")))
                held(jobs)
        else:
            measure(folder, jobs, "--workflow-profile", str(ROOT / "profiles/local"))


def measure(folder: Path, jobs: int, *words: str) -> None:
    """Run one job and many, and print the difference by their number."""
    one, many = workflow(folder / "one", 1, *words), workflow(folder / "many", jobs, *words)
    print(f"one job {one:.1f} s, {jobs} jobs {many:.1f} s: {1000 * (many - one) / (jobs - 1):.1f} ms a job")


def workflow(folder: Path, jobs: int, *words: str) -> float:
    """Run a workflow of so many jobs in a folder of its own, and give the seconds it takes."""
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--cores", "2", *words]
    command += ["--snakefile", str(folder / "Snakefile"), "--config", f"jobs={jobs}"]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode or ("--dry-run" not in words and len(list((folder / "made").iterdir())) != jobs):
        sys.exit(done.stdout + done.stderr)
    return seconds


def quick(place: Path) -> Path:
    """Write the shipped profile for a cluster without accounting that is asked often; give its folder."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    profile |= {"latency-wait": 5, "slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1}
    profile |= {"slurm-logdir": str(place / "logs"), "slurm-no-account": True}
    profile["default-resources"] |= {"mem_mb": 1000}
    place.mkdir()
    (place / "config.yaml").write_text(yaml.safe_dump(profile))
    return place


@contextmanager
def slurm(home: Path) -> Iterator[None]:
    """Hold a SLURM of one node, and have the commands of this process talk to it."""
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


def held(jobs: int) -> None:
    """Print how long the last jobs waited and held their allocation, in SLURM's whole seconds."""
    told = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout
    lines = sorted(told.splitlines(), key=lambda line: int(re.findall(r"^JobId=(\d+)", line)[0]))[-jobs:]
    moments = [
        [datetime.fromisoformat(re.findall(rf" {key}=(\S+)", line)[0]) for key in ("StartTime", "EndTime")]
        for line in lines
    ]
    seconds = sorted((end - begin).total_seconds() for begin, end in moments)
    print(f"a job held its allocation for {seconds[len(seconds) // 2]:.0f} s (median), {seconds[-1]:.0f} s at most")


if __name__ == "__main__":
    main()
