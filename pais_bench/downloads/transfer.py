"""Download a file over HTTP, continue it where a connection broke, and check its sha256 before it gets its name.

The file grows as NAME.part, which the next call continues. A server that ignores the range is read from the start.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, getproxies, proxy_bypass

from pais_bench import __version__
from pais_bench.downloads.table import Download, as_size
from pais_bench.errors import BenchError
from pais_bench.provenance import sha256_of

TIMEOUT_S = 60.0
"""Seconds without a byte after which a connection counts as broken."""
PAUSES_S = (1, 2, 4, 8)
"""Seconds before each further attempt; attempts that brought new bytes do not count."""
REPORT_S = 10.0
"""Seconds between two lines of progress."""
BLOCK = 1 << 20
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of HTTP that another attempt may not meet again."""

ProgressCallback = Callable[[str], None]
"""Takes one line about the progress."""


class Unreachable(BenchError):
    """Report that a server cannot be reached, or has not the file."""


class Silent(Unreachable):
    """Report that a server gives no answer, or breaks every transfer."""


class _BrokenTransfer(Exception):
    """Report that a transfer ended early; the next attempt continues it."""


class _WrongRange(_BrokenTransfer):
    """Report that the server sends other bytes than those that were asked for; the next attempt asks for all."""


BROKEN = (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError, _BrokenTransfer)


def download(file: Download, path: Path, progress: ProgressCallback) -> None:
    """Download a file to a path; raise BenchError where that fails, and keep what arrived.

    A file that is there already is checked instead.
    """
    if path.exists():
        require_published(file, path)
        return
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise BenchError(f"{part}: cannot be written ({error.strerror}); choose another --to") from error
    with open(part, "ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"{part}: another process downloads it; wait for that, or end it") from None
        except OSError:
            pass  # a file system without locks; the digest finds what two processes mixed
        fresh = stream.seek(0, os.SEEK_END) == 0
        _fill(file, stream, part, progress)
        progress(f"{file.name}: complete; its sha256 is checked")
        digest = sha256_of(part)
        if digest != file.sha256 and not fresh:
            progress(f"{file.name}: what an earlier call left does not fit; it is downloaded from the start")
            stream.truncate(0)
            _fill(file, stream, part, progress)
            digest = sha256_of(part)
        if digest != file.sha256:
            part.unlink()
            raise BenchError(
                f"{file.url}: brought another file than the published one (sha256 {digest[:8]}… instead of "
                f"{str(file.sha256)[:8]}…), which is removed; try again from another network, or bring it as {path}"
            )
        os.replace(part, path)


def require_published(file: Download, path: Path) -> None:
    """Raise BenchError where a file has not the published size and sha256; without these any file will do."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        start = f", or rename it to {path.name}.part if it is the start of that file" if size < file.size else ""
        raise BenchError(f"{path}: has {size} bytes instead of the published {file.size}; move it away{start}")
    if file.sha256 is not None and (digest := sha256_of(path)) != file.sha256:
        raise BenchError(
            f"{path}: not the published file (sha256 {digest[:8]}… instead of {file.sha256[:8]}…); move it away, or "
            f"use --to"
        )


def require_space(folder: Path, needed: int, what: str, option: str = "--to") -> None:
    """Raise BenchError where the disk of an existing folder has less free space than needed, in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder}: {what} takes {as_size(needed)}, {as_size(free)} are free; free some, or use {option}"
        )


def _fill(file: Download, stream: BinaryIO, part: Path, progress: ProgressCallback) -> None:
    """Append to the partial file until it is complete."""
    size, failures, furthest, ranges = file.size or 0, 0, stream.seek(0, os.SEEK_END), True
    if furthest > size:
        stream.truncate(0)
        furthest = 0
    require_space(part.parent, size - furthest, file.name)
    while (begin := stream.seek(0, os.SEEK_END)) < size:
        try:
            _append(file, begin, ranges, stream, progress)
        except HTTPError as error:
            fault: Exception = error
            error.close()  # it is the connection, too
            if error.code == 416:  # without a range the server says how long its file is
                ranges = False
            elif error.code not in PASSING:
                raise Unreachable(f"{file.url}: {_reason(error)}{_proxy(str(file.url))}; bring {file.name}") from error
        except BROKEN as error:
            fault = error
            ranges = ranges and not isinstance(error, _WrongRange)
            if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
                raise Unreachable(
                    f"{file.url}: {_reason(error)}{_proxy(str(file.url))}; let SSL_CERT_FILE name the certificates of "
                    f"your network, or bring {file.name}"
                ) from error
        else:
            continue
        stream.flush()
        reached = stream.seek(0, os.SEEK_END)
        failures = 0 if reached > furthest else failures + 1
        furthest = max(furthest, reached)
        if failures > len(PAUSES_S):
            kept = f"; {as_size(reached)} are kept, and the same command continues" if reached else ""
            raise Silent(
                f"{file.url}: {_reason(fault)}{_proxy(str(file.url))}{kept}; try again, or bring {file.name}"
            ) from fault
        progress(f"{file.name}: {_reason(fault)} at {as_size(reached)} of {as_size(size)}; trying again")
        time.sleep(PAUSES_S[max(failures - 1, 0)])


def _append(file: Download, begin: int, ranges: bool, stream: BinaryIO, progress: ProgressCallback) -> None:
    """Append what the server sends from a position on; begin anew where it sends the whole file, if it is that."""
    size, url = file.size or 0, str(file.url)
    headers = {"User-Agent": f"pais-bench/{__version__}"}
    if begin and ranges:
        headers["Range"] = f"bytes={begin}-"
    with build_opener().open(Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        if response.status != 206:
            begin = 0
        elif not re.match(rf"bytes {begin}-", response.headers.get("Content-Range", "")):
            raise _WrongRange("the server sent another range than it was asked for")
        _require_offer(file, begin, response.headers)
        if begin == 0:
            stream.truncate(0)
        position, reported, start = begin, time.monotonic(), time.monotonic()
        while block := response.read1(BLOCK):  # what has arrived: a broken connection loses nothing
            position += len(block)
            if position > size:
                stream.truncate(0)
                raise Unreachable(f"{url}: sends more than the published {size} bytes; bring {file.name}")
            stream.write(block)
            if (now := time.monotonic()) - reported >= REPORT_S:
                reported, rate = now, (position - begin) / (now - start)
                left = f"{(size - position) / rate / 60:.0f} min left"
                progress(f"{file.name}: {as_size(position)} of {as_size(size)}, {as_size(round(rate))}/s, {left}")
    if position < size:
        raise _BrokenTransfer("the connection ended early")


def _require_offer(file: Download, begin: int, headers: Message) -> None:
    """Raise Unreachable where a server offers a web page, as the login of a network is one, or another length."""
    length, kind = headers.get("Content-Length"), headers.get_content_type()
    if kind == "text/html" or (length is not None and begin + int(length) != file.size):
        offer = f"{begin + int(length)} bytes of {kind}" if length is not None else kind
        raise Unreachable(
            f"{file.url}: the server{_proxy(str(file.url))} offers {offer} instead of the published {file.size} bytes; "
            f"try again from another network, or bring {file.name}"
        )


def _reason(error: Exception) -> str:
    """Return what happened, without the class of the error."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no byte for {TIMEOUT_S:g} s"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__).lower()


def _proxy(url: str) -> str:
    """Return the proxy that an address is reached through, without its password, as part of a sentence."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return ""
    address = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return f" (through the proxy {address.hostname}:{address.port or 80} of {parts.scheme}_proxy)"
