"""Check what `pais-bench doctor` finds of a machine: by recorded answers of its programs, and of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import study

from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.machine import finding
from pais_bench.machine.filesystem import check_filesystem, mounted
from pais_bench.machine.gpu import Gpu, check_gpus, compare_torch, read_gpus
from pais_bench.machine.node import check_node, cpu_quota, loader_bytes
from pais_bench.machine.slurm import Nodes, check_requests, check_slurm, parse_sinfo
from pais_bench.study.load import load_study
from pais_bench.study.resources import Resources

LOOPBACK = "gpu*|up|1-00:00:00|1|2|8000|gpu:2\n"
"""What sinfo of SLURM 22.05 printed of the node of tests/slurm/cluster.sh."""
CLUSTER = """\
cpu*|up|2-12:00:00|40|64|256000|(null)
gpu|up|1-00:00:00|8|32|500000|gpu:a100:4(S:0-1),nvme:1
gpu|up|1-00:00:00|2|96|1000000|gpu:h100:8
long|down|infinite|1|16|64000|(null)
short|up|30:00|1|16|64000|(null)
"""
PROFILE = {"retries": 3, "default-resources": {"mem_mb": 4000, "runtime": 60}}
H100 = Gpu("NVIDIA H100 80GB HBM3", "535.104.05", (9, 0), 81559, 81000, 0)
ARCHS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""What torch 2.15.0+cu132 says it has code for."""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Put a program before all others."""
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_sinfo_is_read() -> None:
    assert parse_sinfo(LOOPBACK) == [Nodes("gpu", True, True, 1440, 1, 2, 8000, 2)]
    nodes = parse_sinfo(CLUSTER)
    assert [one.gpus for one in nodes] == [0, 4, 8, 0, 0]
    assert [one.minutes for one in nodes] == [3600, 1440, 1440, None, 30]
    assert [one.up for one in nodes] == [True, True, True, False, True]
    with pytest.raises(BenchError, match="sinfo: its line 'gpu 1' is none of the format"):
        parse_sinfo("gpu 1\n")


@pytest.mark.parametrize(
    ("train", "level", "text"),
    [
        ({"partition": "v100"}, "fail", "there is no partition 'v100'; set partition to one of cpu, gpu, long, short"),
        ({"partition": "gpu,v100"}, "fail", "there is no partition 'v100'; set partition to one of cpu, gpu, long, sh"),
        ({"partition": "cpu,gpu", "gpus": 8, "minutes": 360}, None, ""),
        ({"partition": "gpu,long", "minutes": 100_000}, None, ""),
        ({"partition": "gpu,short", "minutes": 1441}, "fail", "1441 minutes, and partition gpu gives 1440: the"),
        ({"partition": "cpu,long", "cpus": 60, "minutes": 5000}, "fail", "5000 minutes, and partition cpu gives 3600"),
        ({"partition": "short,long", "minutes": 40}, None, ""),
        ({"gpus": 1}, "fail", "1 GPUs a node, and no node of partition cpu has more than 0; lower gpus"),
        ({"partition": "gpu", "gpus": 8, "cpus": 16}, "fail", "128 CPUs a node, and no node of partition gpu has more"),
        ({"partition": "gpu", "gpus": 8, "nodes": 3}, "fail", "3 nodes of 8 CPUs, 8 GPUs and 4000 MB each, and partit"),
        ({"partition": "gpu", "mem_mb": 2_000_000}, "fail", "2000000 MB a node, and no node of partition gpu has more"),
        ({"partition": "gpu", "minutes": 1441}, "fail", "1441 minutes, and partition gpu gives 1440: the job would w"),
        ({"partition": "gpu", "minutes": 1440}, "warn", "attempt 4 requests 5760 minutes, and partition gpu gives 14"),
        ({"partition": "gpu", "mem_mb": 300_000}, "warn", "attempt 4 requests 1200000 MB, and no node of partition g"),
        ({"partition": "gpu", "gpus": 8, "nodes": 2, "cpus": 12, "minutes": 360}, None, ""),
        ({"partition": "gpu", "minutes": 1440, "max_minutes": 1440}, None, ""),
        ({"partition": "long", "minutes": 100_000}, None, ""),
    ],
)
def test_what_slurm_would_refuse_is_told(train: dict[str, Any], level: str | None, text: str) -> None:
    """Also of a rule that leaves out what the profile requests."""
    found = list(check_requests({"train": Resources(**train)}, parse_sinfo(CLUSTER), PROFILE, None))
    assert [one.level for one in found] == ([level] if level else [])
    assert all(one.text.startswith(f"resources of train: {text}") for one in found)


def test_rules_with_one_fault_share_a_line_and_a_long_training_is_told() -> None:
    resources = {"default": Resources(partition="short", minutes=30, max_minutes=30)}
    wrong = {**resources, "default": Resources(partition="short")}
    (fault,) = check_requests(wrong, parse_sinfo(CLUSTER), PROFILE, None)
    assert fault.level == "fail" and fault.text.startswith("resources of prepare, split, train, predict, evaluate, rep")
    (long,) = check_requests(resources, parse_sinfo(CLUSTER), PROFILE, 7200.0)
    assert long == ("ok", "resources of train: the longest training left takes 2.0 h, a job has 0.5 h: it saves, and "
                    "goes back into the queue")  # fmt: skip


def test_a_slurm_that_is_absent_or_broken_or_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setenv("PATH", str(tmp_path))
        (absent,) = check_slurm(None, PROFILE, None)
    assert absent == ("ok", "no SLURM: sinfo is not installed; the profile local trains on this machine")
    message = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    install(tmp_path, monkeypatch, "sinfo", f"echo '{message}' >&2; exit 1")
    (broken,) = check_slurm(None, PROFILE, None)
    assert broken.level == "warn" and broken.text.startswith(f"no SLURM: sinfo: {message}; ")
    install(tmp_path, monkeypatch, "sinfo", "exec sleep 30")
    monkeypatch.setattr(finding, "SECONDS", 0.2)
    (silent,) = check_slurm(None, PROFILE, None)
    assert silent.level == "warn" and "sinfo: no answer for 0.2 s" in silent.text


@pytest.mark.parametrize(
    ("built", "gpus", "driver", "level", "text"),
    [
        (
            (13, 2),
            [H100],
            (12, 2),
            "fail",
            "is built for CUDA 13.2, and the driver knows 12.2; ask for a driver of CUDA",
        ),
        ((13, 2), [H100], (13, 0), None, ""),
        ((13, 2), [H100._replace(capability=(7, 0))], (13, 2), "fail", "compute capability 7.0, only sm_75, sm_80"),
        ((13, 2), [H100._replace(capability=(8, 9))], (13, 2), None, ""),
        ((13, 2), [H100._replace(capability=(11, 0))], (13, 2), "fail", "compute capability 11.0"),
        ((13, 2), [], None, "ok", "needs GPUs with a driver of CUDA 13, and has code for compute capability 7.5 and"),
        (None, [H100], (12, 2), "fail", "is built without CUDA and trains on the CPU; install one with CUDA"),
        (None, [], None, None, ""),
    ],
)
def test_a_torch_is_compared_with_the_driver_and_the_gpu(
    built: tuple[int, int] | None, gpus: list[Gpu], driver: tuple[int, int] | None, level: str | None, text: str
) -> None:
    found = list(compare_torch("2.15.0", built, ARCHS, gpus, driver))
    assert [one.level for one in found] == ([level] if level else [])
    assert all(text in one.text for one in found)


def test_ptx_runs_on_later_gpus_and_code_of_one_architecture_on_no_other() -> None:
    blackwell = [H100._replace(capability=(12, 1))]
    for archs, faults in ((["sm_90a"], 1), (["sm_90", "compute_90"], 0), (["sm_120a"], 1), (["sm_120"], 0)):
        assert len(list(compare_torch("2", (13, 0), archs, blackwell, (13, 0)))) == faults, archs


def test_gpus_are_read_as_the_driver_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.level for one in check_gpus()] == ["ok"] or read_gpus()
    install(tmp_path, monkeypatch, "nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 535.104.05, 9.0, 81559, 81000, 0'")
    assert read_gpus() == [H100] and [one.level for one in check_gpus()] == ["ok"]
    install(tmp_path, monkeypatch, "nvidia-smi", "echo 'NVIDIA H100 MIG 1g.10gb, 535.104.05, 9.0, [N/A], [N/A], [N/A]'")
    assert [one.text for one in check_gpus()] == [
        "GPU 0: NVIDIA H100 MIG 1g.10gb, driver 535.104.05; its driver does not tell its memory"
    ]
    install(tmp_path, monkeypatch, "nvidia-smi", "echo 'NVIDIA T4, 535.104.05, 7.5, 16384, 4096, 97'")
    (busy,) = check_gpus()
    assert busy.level == "warn" and "4.0 of 16.0 GiB are free; `nvidia-smi` names the processes" in busy.text
    install(tmp_path, monkeypatch, "nvidia-smi", "echo 'No devices were found'; exit 6")
    assert [one.text for one in check_gpus()] == ["no GPU: nvidia-smi lists none; trainings use the CPU here"]
    failed = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    install(tmp_path, monkeypatch, "nvidia-smi", f"echo '{failed}'; exit 9")
    (broken,) = check_gpus()
    assert broken.level == "warn" and broken.text.startswith(f"no GPU: nvidia-smi: {failed}; ")


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/home rw,vers=4.2
31 22 0:41 / /scratch\\040two rw,relatime - lustre mds@tcp:/fs rw,flock
32 30 0:42 / /home/me/ssh rw,nosuid - fuse.sshfs me@host:/ rw
33 30 0:43 / /home/me/tmp rw - tmpfs tmpfs rw
34 33 0:44 / /home/me/tmp rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data", "ext4"),
        ("/home/me/results", "nfs4"),
        ("/homes", "ext4"),
        ("/scratch two/x", "lustre"),
        ("/home/me/ssh", "fuse.sshfs"),
        ("/home/me/tmp/results", "xfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert mounted(Path(path), MOUNTS) == kind


def test_a_results_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    found = list(check_filesystem(tmp_path / "later" / "results", 1.0, on_cluster=False))
    assert {one.level for one in found} == {"ok"} or os.statvfs(tmp_path).f_favail < 10_000
    assert not list(tmp_path.iterdir())
    short = [one for one in check_filesystem(tmp_path, 1e18, on_cluster=False) if one.level == "fail"]
    assert len(short) == 1 and "and the runs left take 1000000000.0 GB; free some" in short[0].text


def test_a_results_folder_in_memory_or_in_the_kernel() -> None:
    memory = next(iter(check_filesystem(Path("/dev/shm/results"), None, on_cluster=True)))
    assert memory.level == "warn" and "lies in memory (tmpfs)" in memory.text
    kernel = [one for one in check_filesystem(Path("/proc/results"), None, on_cluster=False) if one.level == "fail"]
    assert len(kernel) == 1 and kernel[0].text.startswith("/proc/results: cannot be written: ")


def test_limits_of_this_machine() -> None:
    assert cpu_quota("250000 100000\n") == 2.5
    assert cpu_quota("max 100000\n") is None and cpu_quota("") is None
    levels = [one.level for one in check_node(None)]
    assert levels[0] == "ok" and "fail" not in levels


def test_loader_processes_fill_at_most_what_a_batch_has(tmp_path: Path) -> None:
    """Of the COCO study: 4 labelled and 12 unlabelled images would be 28 views of up to 1200 x 1333 px."""
    values = study(input={"min_size_train": [400, 1200], "max_size_train": 1333})
    values["training"] |= {"labelled_batch_size": 4, "unlabelled_batch_size": 12}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    assert loader_bytes(load_study(path), 7) == 7 * 2 * 28 * 3 * 1200 * 1333


def test_doctor_names_what_a_study_would_fail_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, "sinfo", f"cat <<END\n{LOOPBACK}END")
    install(tmp_path, monkeypatch, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(study(resources={"train": {"gpus": 4}, "predict": {"mem_mb": 9000}})))
    assert main(["doctor", "--for", str(path), "--results", str(tmp_path)]) == 1
    printed = capfd.readouterr().out
    assert (
        "  fail: resources of train: 4 GPUs a node, and no node of partition gpu has more than 2; lower gpus" in printed
    )
    assert "  fail: resources of predict: 9000 MB a node, and no node of partition gpu has more than 8000" in printed
    assert (
        "  warn: sacct: Slurm accounting storage is disabled; start with ` -- --slurm-status-command squeue`" in printed
    )
    assert "torchvision\n" in printed and "mmdet" not in printed
    assert main(["doctor", "--for", str(path), "mmdet"]) == 2
    assert "checks the backends of the study; leave out mmdet" in capfd.readouterr().err
