"""Check that the processes of a machine share its GPUs: each has its own, and waits where none is free."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_machine import install
from tiny import write_study

from pais_bench.cli.commands import run as run_command
from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.machine.gpu_claim import visible_gpus
from pais_bench.study.load import load_study

FOUR = "for gpu in 0 1 2 3; do echo 'NVIDIA H100, 535.1, 9.0, 81559, 81000, 0'; done"
CLAIM = """\
import os, sys
from pais_bench.machine.gpu_claim import claim_gpus
claim_gpus(sys.argv[2].split(","), int(sys.argv[1]), lambda text: print(text, flush=True))
print("has", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (None, ["0", "1", "2", "3"]),
        ("2, 1", ["2", "1"]),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["1"]),
        ("0,1,4,2", ["0", "1"]),
        ("GPU-5a,MIG-7b", ["GPU-5a", "MIG-7b"]),
    ],
)
def test_the_gpus_are_those_that_cuda_shows(
    shown: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    install(tmp_path, monkeypatch, "nvidia-smi", FOUR)
    assert visible_gpus() == expected
    for without in ("echo 'No devices were found'; exit 6", "echo 'failed'; exit 9"):
        install(tmp_path, monkeypatch, "nvidia-smi", without)
        assert visible_gpus() == []


def test_a_process_has_gpus_of_its_own_until_it_ends(tmp_path: Path) -> None:
    def start(*words: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", CLAIM, *words], subprocess.PIPE
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def says(process: subprocess.Popen[str]) -> str:
        assert process.stdout
        return process.stdout.readline().rstrip()

    with start("1", "0,GPU-1/2,3") as first:
        assert says(first) == "has 0"
        with start("3", "3,0,GPU-1/2") as third:
            assert says(third) == "waiting for 3 of the GPUs 3,0,GPU-1/2, which other trainings have claimed"
            with start("2", "0,GPU-1/2,3") as second:
                assert says(second) == "has GPU-1/2,3", "one that waits holds none"
                first.kill()
                second.communicate()
            assert says(third) == "has 3,0,GPU-1/2"
            third.kill()


def test_commands_claim_what_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cell = ["--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]
    path = write_study(tmp_path)
    words = [str(path), "--results", str(tmp_path / "results"), *cell]
    for command, gpus in (("train", "5,GPU-6"), ("predict", "GPU-6")):
        assert main([command, *words, "--gpus", gpus]) == 2
        assert "prepare" in capsys.readouterr().err and os.environ["CUDA_VISIBLE_DEVICES"] == gpus.split(",")[0]
    assert main(["train", *words, "--gpus", "1, 2,,1", "--devices", "3"]) == 2
    assert "error: --devices 3: --gpus names 2, 1,2; name more of them" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert main(["train", *words, "--gpus", "1,2"]) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5", "a rank has those of the first"


def test_trainings_that_request_gpus_share_those_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = write_study(tmp_path, resources={"train": {"gpus": 2}})
    asking, modest = load_study(path), load_study("demo")
    assert run_command._shared_gpus(asking) == ([], ["devices=2"]), "without a GPU, one at a time"
    install(tmp_path, monkeypatch, "nvidia-smi", FOUR)
    assert run_command._shared_gpus(modest) == ([], [])
    assert run_command._shared_gpus(asking) == (["gpus=0,1,2,3"], ["devices=4"])
    flags = ["--", "--printshellcmds", "--config", f"python={sys.executable}"]
    assert main(["run", str(path), "--results", str(tmp_path / "results"), "-n", *flags]) == 0
    printed = capfd.readouterr().out
    assert printed.count("--gpus 0,1,2,3 ") == printed.count("pais_bench train ") + printed.count("pais_bench predict ")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(BenchError, match=r"resources\.train\.gpus: 2, and this machine shows 1 GPUs; set it to"):
        run_command._shared_gpus(asking)
