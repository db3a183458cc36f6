"""Downloads of published weights from a server on loopback: whole, cut, endless, wrong, missing; then found by name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from darsr_deploy.errors import DarsrError
from darsr_train.backbones import PUBLISHED, SRFBN, download
from tests.support.commands import darsr
from tests.support.shared import SHARED, needs_shared


class Server(ThreadingHTTPServer):
    """Serves one file under every address but ``/missing``.

    Attributes:
        content, length: the file, and whether its length is announced.
        asked: number of requests.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.length, self.asked = b"", True, 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who has read enough hangs up
            self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        """Keep stderr quiet."""


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
def published(server, tmp_path, monkeypatch):
    """Random weights in the place of the published ones, on the server; an empty folder for what is installed."""
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
    assert line == "error: backbone srfbn-s: is not installed; download it: darsr backbone download srfbn-s-x2\n"
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
    ours = json.loads(darsr("backbone", "info", tmp_path / "ours.safetensors", "--json").stdout)
    assert ours["sha256"] == facts["sha256"]


def test_the_list_tells_what_is_installed_and_what_can_be(server, published):
    before = {row["name"]: row for row in json.loads(darsr("backbone", "list", "--json").stdout)}
    assert before["edge-x2"]["installed"] and not before["srfbn-s-x2"]["installed"]
    assert before["srfbn-s-x2"]["command"] == "darsr backbone download srfbn-s-x2"
    assert before["srfbn-s-x2"]["licence"].startswith("none stated")
    darsr("backbone", "download", "srfbn-s-x2", "--url", server.url)
    after = {row["name"]: row for row in json.loads(darsr("backbone", "list", "--json").stdout)}
    assert after["srfbn-s-x2"]["installed"] and after["srfbn-s-x2"]["macs_per_lr_pixel"] > 1e6
    assert not after["srfbn-s-x4"]["installed"]


def test_what_is_installed_is_not_downloaded_again_unasked(server, published):
    for more, requests in (((), 1), ((), 1), (("--overwrite",), 2)):
        assert darsr("backbone", "download", "srfbn-s-x2", "--url", server.url, *more).exit_code == 0
        assert server.asked == requests


@pytest.mark.parametrize("length", [True, False], ids=["announced length", "no length"])
@pytest.mark.parametrize("change", ["cut", "longer", "other"])
def test_another_file_than_the_published_one_installs_nothing(change, length, server, published):
    whole = server.content
    server.content = {"cut": whole[:1000], "longer": whole + b"!" * 10**7, "other": whole[:-1] + b"!"}[change]
    server.length = length
    done = darsr("backbone", "download", "srfbn-s-x2", "--url", server.url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {server.url}/SRFBN/SRFBN-S_x2_BI.pth: is not the published file: its length or sha256 differs "
        f"(expected {len(whole):,} bytes); try again, or give another --url\n"
    )
    assert not published.exists()


def test_an_address_that_gives_no_file_is_one_line(server, published):
    reasons = {
        f"{server.url}/missing": r"cannot be downloaded \(HTTP Error 404: Not Found\); check the network",
        "http://127.0.0.1:1": r"cannot be downloaded \(.*[Rr]efused\)",
        "http://[": r"cannot be downloaded \(",
        "file:///etc": "is not a web address",
        "nonsense": "is not a web address",
    }
    for base, reason in reasons.items():
        with pytest.raises(DarsrError, match=reason):
            download("srfbn-s-x2", base)
    assert not published.exists()


def test_a_folder_that_cannot_be_written_is_one_line(server, published, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DarsrError, match=r"data/backbones: cannot be written \(Not a directory\); set DARSR_DATA"):
        download("srfbn-s-x2", server.url)


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
