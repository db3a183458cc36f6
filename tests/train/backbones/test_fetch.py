"""Downloads against a server on loopback: whole, resumed, without ranges, cut, wrong; then weights installed by name."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

import cli
from darsr_deploy.errors import DarsrError
from darsr_train.backbones.fetch import fetch
from tests.support.shared import SHARED, needs_shared

torch = pytest.importorskip("torch", reason="importing weights needs PyTorch (extra train)")

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file under every address but ``/missing``.

    Attributes:
        content, ranges, cut, length: the file, whether ranges are understood, after how many bytes of an answer the
            connection is cut, and whether the length is announced.
        asked: the Range header of every request, None where there was none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.ranges, self.cut, self.length = DATA, True, None, True
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        whole = len(server.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if server.length:
            self.send_header("Content-Length", str(whole - start))
        self.end_headers()
        end = whole if server.cut is None else start + server.cut
        self.wfile.write(server.content[start:end])

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "file.partial"


def test_a_file_arrives_whole(server, partial):
    seen = []
    fetch(f"{server.url}/file", partial, len(DATA), SHA256, seen.append)
    assert partial.read_bytes() == DATA
    assert server.asked == [None]
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == len(DATA)


@pytest.mark.parametrize("length", [True, False], ids=["announced length", "no length"])
def test_a_cut_download_goes_on_where_it_stopped(length, server, partial):
    server.cut, server.length = 100_000, length
    for kept in (100_000, 200_000):
        with pytest.raises(DarsrError, match=rf"/file: the connection was cut at {kept:,} of 256,000 bytes; .*again"):
            fetch(f"{server.url}/file", partial, len(DATA), SHA256)
        assert partial.read_bytes() == DATA[:kept]
    fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert partial.read_bytes() == DATA
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_starts_over(server, partial):
    server.ranges = False
    partial.write_bytes(b"what an earlier try left" * 10)
    fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert partial.read_bytes() == DATA
    assert server.asked == ["bytes=240-"]


def test_a_complete_download_asks_for_nothing(server, partial):
    partial.write_bytes(DATA)
    fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert server.asked == []


def test_what_is_too_long_already_is_thrown_away(server, partial):
    partial.write_bytes(DATA + b"more")
    fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert partial.read_bytes() == DATA and server.asked == [None]


@pytest.mark.parametrize("start", [b"", b"another beginning"], ids=["fresh", "resumed"])
def test_a_wrong_checksum_keeps_nothing(start, server, partial):
    partial.write_bytes(start)
    server.content = DATA if start else DATA[::-1]
    with pytest.raises(DarsrError, match=rf"/file: the file has sha256 \w{{64}}, expected {SHA256}; nothing"):
        fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert not partial.exists()
    server.content = DATA  # and the next try is a fresh one
    fetch(f"{server.url}/file", partial, len(DATA), SHA256)


@pytest.mark.parametrize("length", [True, False], ids=["announced length", "no length"])
def test_a_file_of_another_length_is_refused(length, server, partial):
    server.content, server.length = DATA + b"!", length
    with pytest.raises(DarsrError, match=r"/file: the file has (256,001|more than the expected 256,000) bytes"):
        fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    assert not partial.exists()


def test_no_such_file_and_no_server_are_one_line(server, partial):
    with pytest.raises(DarsrError, match="/missing: the server answers 404 Not Found; check --url"):
        fetch(f"{server.url}/missing", partial, len(DATA), SHA256)
    server.shutdown()
    server.server_close()
    with pytest.raises(DarsrError, match=r"/file: cannot be reached \(Connection refused\); check the network"):
        fetch(f"{server.url}/file", partial, len(DATA), SHA256)
    for address in ("file:///etc/passwd", "nonsense", "http://"):
        with pytest.raises(DarsrError, match=r"is no web address|cannot be reached"):
            fetch(address, partial, len(DATA), SHA256)
    assert not partial.exists()


def test_a_place_that_cannot_be_written_is_one_line(server, tmp_path):
    with pytest.raises(DarsrError, match=r"no folder/file: cannot be written \(No such file or directory\)"):
        fetch(f"{server.url}/file", tmp_path / "no folder" / "file", len(DATA), SHA256)


# --- darsr backbone download ---------------------------------------------------------------------------------------------


def darsr(*arguments: object):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """Random weights in the place of the published ones, on the server; an empty folder for what is installed."""
    from darsr_train.backbones import PUBLISHED, SRFBN

    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({f"module.{name}": tensor for name, tensor in SRFBN(2).state_dict().items()}, buffer)
    server.content = buffer.getvalue()
    digest = hashlib.sha256(server.content).hexdigest()
    entry = replace(PUBLISHED["srfbn-s-x2"], size=len(server.content), sha256=digest)
    monkeypatch.setitem(PUBLISHED, "srfbn-s-x2", entry)
    monkeypatch.setenv("DARSR_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "backbones"


def test_downloaded_weights_are_found_by_name(server, published, tmp_path):
    line = darsr("backbone", "info", "srfbn-s").stderr
    assert line == "error: backbone srfbn-s: is not installed; fetch it: darsr backbone download srfbn-s-x2\n"
    done = darsr("backbone", "download", "srfbn-s-x2", "--url", f"{server.url}/mirror/")
    assert done.exit_code == 0, done.stderr
    assert "licence of these weights: none stated (github.com/edbca/DARSR)" in done.stderr
    assert [p.name for p in published.iterdir()] == ["srfbn-s-x2.safetensors"], "nothing else is left"
    for name in ("srfbn-s", "srfbn-s-x2"):
        facts = json.loads(darsr("backbone", "info", name, "--json").stdout)
        assert (facts["name"], facts["architecture"], facts["parameters"]) == ("srfbn-s-x2", "srfbn-s", 282_442)
        assert facts["licence"].startswith("none stated")
        assert facts["source"].endswith("16b5b00857629ed7f0f69dea1c8c773246f94073/SRFBN/SRFBN-S_x2_BI.pth")
        assert facts["source_sha256"] == hashlib.sha256(server.content).hexdigest()
    # the same file imported by hand is the same backbone: adapters fitted through one run with the other
    (tmp_path / "theirs.pth").write_bytes(server.content)
    darsr("backbone", "import", tmp_path / "theirs.pth", "-o", tmp_path / "ours.safetensors")
    assert (
        json.loads(darsr("backbone", "info", tmp_path / "ours.safetensors", "--json").stdout)["sha256"]
        == facts["sha256"]
    )


def test_the_list_tells_what_is_installed_and_what_can_be(server, published):
    before = {row["name"]: row for row in json.loads(darsr("backbone", "list", "--json").stdout)}
    assert before["edge-x2"]["installed"] and not before["srfbn-s-x2"]["installed"]
    assert before["srfbn-s-x2"]["command"] == "darsr backbone download srfbn-s-x2"
    assert before["srfbn-s-x2"]["licence"].startswith("none stated")
    darsr("backbone", "download", "srfbn-s-x2", "--url", server.url)
    after = {row["name"]: row for row in json.loads(darsr("backbone", "list", "--json").stdout)}
    assert after["srfbn-s-x2"]["installed"] and after["srfbn-s-x2"]["macs_per_lr_pixel"] > 1e6
    assert not after["srfbn-s-x4"]["installed"]


def test_what_is_installed_is_not_fetched_again_unasked(server, published):
    for more, requests in (((), 1), ((), 1), (("--overwrite",), 2)):
        assert darsr("backbone", "download", "srfbn-s-x2", "--url", server.url, *more).exit_code == 0
        assert len(server.asked) == requests


def test_a_failed_download_is_one_line_and_installs_nothing(server, published):
    server.cut = 1000
    done = darsr("backbone", "download", "srfbn-s-x2", "--url", server.url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {server.url}/SRFBN/SRFBN-S_x2_BI.pth: the connection was cut at 1,000")
    assert len(done.stderr.splitlines()) == 1
    assert not list(published.glob("*.safetensors"))
    server.cut = None
    assert darsr("backbone", "download", "srfbn-s-x2", "--url", server.url).exit_code == 0
    assert server.asked == [None, "bytes=1000-"]


def test_unknown_names_list_those_that_can_be_downloaded():
    done = darsr("backbone", "download", "resnet")
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.endswith("choose srfbn-s-x2 or srfbn-s-x4\n")


@needs_shared
@pytest.mark.parametrize("scale", [2, 4])
def test_the_real_files_have_the_size_and_checksum_that_are_expected(scale, server, tmp_path, monkeypatch):
    monkeypatch.setenv("DARSR_DATA", str(tmp_path))
    server.content = (SHARED / "weights" / f"SRFBN-S_x{scale}_BI.pth").read_bytes()
    done = darsr("backbone", "download", f"srfbn-s-x{scale}", "--url", server.url, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["scale"] == scale
