"""One file over HTTP: goes on where it stopped, and is verified before anybody sees it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from darsr_deploy.errors import DarsrError

_CHUNK = 1 << 16  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_AGAIN = "run the command again: it goes on from there"


def fetch(url: str, partial: Path, size: int, sha256: str, report: Callable[[int], None] = lambda _: None) -> None:
    """Download a known file into ``partial``; what an earlier call left there is not fetched again (HTTP Range).

    When this returns, ``partial`` is the whole file and has the right checksum. A cut connection leaves what came.

    Args:
        size, sha256: of the file, in bytes and hexadecimal.
        report: called with the bytes that are there, at the start and after every chunk.

    Raises:
        DarsrError: no such address, no network, a cut connection, another file than the one expected (nothing of which
            is kept), or a folder that cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DarsrError(url, "is no web address", "give one that starts with https://")
    have = partial.stat().st_size if partial.is_file() else 0
    try:
        if have != size:
            _receive(url, partial, have if have < size else 0, size, report)
        report(size)
        found = hashlib.sha256(partial.read_bytes()).hexdigest()
    except OSError as error:
        raise DarsrError(str(partial), f"cannot be written ({error.strerror or error})", "free some space") from error
    if found != sha256:
        partial.unlink()
        raise DarsrError(
            url,
            f"the file has sha256 {found}, expected {sha256}; nothing of it was kept",
            "try again, or another --url",
        )


def _receive(url: str, partial: Path, have: int, size: int, report: Callable[[int], None]) -> None:
    with _opened(url, have) as response:
        start, total = _extent(response, have)
        if total not in (None, size):
            raise DarsrError(url, f"the file has {total:,} bytes, expected {size:,}", "check --url")
        with open(partial, "ab" if start else "wb") as file:
            have = start
            report(have)
            for chunk in _chunks(response):
                file.write(chunk[: size - have])
                have += len(chunk)
                if have > size:
                    break  # without an announced length: too long, which the checksum need not find out
                report(have)
    if have > size:
        partial.unlink()
        raise DarsrError(url, f"the file has more than the expected {size:,} bytes", "check --url")
    if have < size:
        raise DarsrError(url, f"the connection was cut at {have:,} of {size:,} bytes", _AGAIN)


@contextlib.contextmanager
def _opened(url: str, have: int) -> Iterator[http.client.HTTPResponse]:
    """The response to a request for the bytes from ``have`` on."""
    headers = {"User-Agent": "darsr", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise DarsrError(url, f"the server answers {error.code} {error.reason}", "check --url") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be parsed
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise DarsrError(
            url, f"cannot be reached ({why})", "check the network, or give a place that holds the file with --url"
        ) from error
    with response:
        yield response


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the answer starts in the file (0 from a server that knows no ranges), and the file's length if announced."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have:
        raise DarsrError(response.url, "the server answers with another part of the file", "give another --url")
    return have, int(found[2]) if found[2].isdigit() else None


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes until the end or a cut; which of the two it was, the number of bytes tells."""
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException):
        return
