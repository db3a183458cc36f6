"""``darsr ui``: what its server answers; bad input is a sentence, and nobody else drives it."""

# ruff: noqa: E402 (what is not installed is a reason to skip, before it is imported)
from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

for module, extra in (("starlette", "ui"), ("uvicorn", "ui"), ("onnxruntime", "ort")):
    pytest.importorskip(module, reason=f"{module} is not installed (extra {extra})")

import cli
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.resample import imresize
from export.page import studio as studio_module
from export.page.guard import Access
from export.page.server import PORT, bind
from export.page.studio import Opened, Wanted, place_upload
from tests.support.commands import done, heed_ctrl_c, refused
from tests.support.page_server import decoded, serving

PARTS = ("", "page.css", "page.js", "viewer.css", "viewer.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("uploads")) as found:
        yield found


@pytest.fixture(scope="module")
def blurred(photo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "blurred.png"
    write_image(path, cv2.GaussianBlur(photo, (0, 0), 1.2))
    return path


@pytest.fixture(scope="module")
def dirty(photo, tmp_path_factory) -> Path:
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    path = tmp_path_factory.mktemp("pictures") / "dirty.jpg"
    write_image(path, np.clip(photo + noise, 0, 255).astype(np.uint8), quality=60)
    return path


# ---- the same as the command line


@pytest.mark.parametrize("wishes", [{}, {"amount": 0.5}, {"scale": 4, "amount": 1.5}], ids=str)
def test_what_is_shown_and_saved_is_what_the_command_line_makes(server, blurred, wishes, tmp_path):
    options = [word for name, value in wishes.items() for word in (f"--{name}", value)]
    same = (blurred, "--threads", "1", *options)
    (row,) = [json.loads(done("upscale", *same, "-o", tmp_path / "cli.png", "--json").stdout)]
    done("upscale", *same, "-o", tmp_path / "cli.jpg", "--format", "jpg")
    done("adapt", *same, "-o", tmp_path / "cli.darsr")
    opened = server.open(blurred)
    view = server.view(opened, **wishes)
    assert (view["decision"], view["found"]) == (row["decision"], row["found"])
    assert np.array_equal(decoded(view["after"]), read_image(tmp_path / "cli.png"))
    scale = wishes.get("scale", 2)
    for kind, name in (
        ("png", f"blurred_x{scale}.png"),
        ("jpg", f"blurred_x{scale}.jpg"),
        ("adapter", "blurred.darsr"),
    ):
        own = f"cli.{name.rpartition('.')[2]}"
        assert server.file(opened, kind, **wishes) == (name, (tmp_path / own).read_bytes())
    assert view["options"] == " ".join(map(str, options))


def test_what_is_told_to_the_page(server, blurred, dirty):
    opened = server.open(blurred)
    assert (opened["name"], opened["width"], opened["height"]) == ("blurred.png", 96, 80)
    view = server.view(opened)
    assert view["window"] == [0, 0, 96, 80] and view["kernel"].startswith("<svg ")
    assert np.array_equal(decoded(view["before"]), imresize(read_image(blurred), 160, 192))
    assert server.view(opened, before=False)["before"] is None
    wider = server.view(opened, amount=2)
    assert wider["kernel_words"] != view["kernel_words"] and wider["after"] != view["after"]
    assert view["steers"] == {"denoise": False, "deblock": False}
    opened = server.open(dirty)
    whole, kept = server.view(opened), server.view(opened, denoise=0.2, deblock=0.3)
    assert whole["found"]["noise"] > 2 and whole["found"]["jpeg_quality"] == 60
    assert whole["steers"] == {"denoise": True, "deblock": True}
    assert whole["after"] != kept["after"] and kept["options"] == "--denoise 0.2 --deblock 0.3"


def test_a_slider_that_would_change_nothing_is_off(server, photo, tmp_path):
    """A hardly compressed picture counts as clean, and its networks are not told of the compression."""
    write_image(tmp_path / "fine.jpg", cv2.GaussianBlur(photo, (0, 0), 1.2), quality=93)
    view = server.view(server.open(tmp_path / "fine.jpg"))
    assert view["found"]["jpeg_quality"] == 93 and not view["steers"]["deblock"]


def test_transparency_and_sixteen_bits(server, photo, tmp_path):
    alpha = np.full((*photo.shape[:2], 1), 65535, np.uint16)
    alpha[:, :30] = 0
    write_image(tmp_path / "cut.png", np.dstack([photo.astype(np.uint16) * 257, alpha]))
    opened = server.open(tmp_path / "cut.png")
    after = decoded(server.view(opened)["after"])
    assert after.shape == (160, 192, 4) and after[80, 20, 3] == 0 and after[80, 100, 3] == 255
    line = server.refused(f"pictures/{opened['id']}/files", {"kind": "jpg"})
    assert line == "cut_x2.jpg: JPEG holds 8 bits a channel, and the image has 16; write a PNG or TIFF"
    assert server.file(opened, "png")[0] == "cut_x2.png"


def test_what_a_format_cannot_hold_is_said(server, photo, tmp_path):
    from darsr_deploy.images.metadata import Metadata
    from darsr_deploy.images.reader import Picture

    like = Picture(photo, metadata=Metadata(colour=((b"gAMA", b"\0\0\x86\xa0"),)))
    write_image(tmp_path / "gamma.png", photo, like)
    opened = server.open(tmp_path / "gamma.png")
    made = server.done(f"pictures/{opened['id']}/files", {"kind": "jpg"})
    line = "gamma_x2.jpg: this format does not hold the source's colour chunks (gAMA); write a PNG to keep it"
    assert made == {"name": "gamma_x2.jpg", "note": line}
    assert server.done(f"pictures/{opened['id']}/files", {"kind": "png"})["note"] == ""


def test_a_file_is_made_once_for_the_same_wishes(server, blurred, monkeypatch):
    opened = server.open(blurred)
    first = server.file(opened, "png")
    monkeypatch.setattr("export.page.files.upscale_picture", lambda *_: pytest.fail("made again"))
    assert server.file(opened, "png") == first


@pytest.mark.slow
def test_the_onnx_file_is_that_of_export(server, blurred, tmp_path, built_once):
    for module in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(module, reason="exporting needs PyTorch and onnx, extras of their own")
    copy = tmp_path / blurred.name
    copy.write_bytes(blurred.read_bytes())
    done("adapt", copy, "--threads", "1")
    done("export", tmp_path / "blurred.darsr")
    assert server.file(server.open(blurred), "onnx") == ("blurred.onnx", (tmp_path / "blurred.onnx").read_bytes())


# ---- large pictures


def test_of_a_large_picture_a_part_is_redone(server, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(studio_module.WINDOW, 2, 48)
    large = cv2.GaussianBlur(np.tile(photo, (2, 2, 1)), (0, 0), 1.2)
    large[:, 96:] = large.mean((0, 1)).round().astype(np.uint8)  # nothing to see
    write_image(tmp_path / "large.png", large)
    opened = server.open(tmp_path / "large.png")
    left, _, width, height = server.view(opened)["window"]
    assert (width, height) == (48, 48) and left < 96, "where there is most detail"
    view = server.view(opened, place=[190, 3])
    assert view["window"] == [192 - 48, 0, 48, 48]
    part = large[:48, 192 - 48 :]
    assert np.array_equal(decoded(view["before"]), imresize(np.ascontiguousarray(part), 96, 96))
    assert decoded(view["after"]).shape == (96, 96, 3)


def test_the_window_lies_in_the_picture():
    wide = Opened(Path("x"), np.zeros((300, 4000, 3), np.uint8), None)
    assert wide.window(2, (0, 0)) == (0, 0, 384, 300) and wide.window(2, (9999, 9999)) == (3616, 0, 384, 300)
    assert wide.window(4, (2000, 150)) == (1904, 54, 192, 192)
    assert wide.window(2, None)[2:] == (384, 300), "all is even"


def test_old_pictures_are_closed_and_their_files_removed(server, blurred):
    first = server.open(blurred)
    assert len(list(server.folder.iterdir())) <= studio_module.MOST_OPEN
    for _ in range(studio_module.MOST_OPEN):
        server.open(blurred)
    line = server.refused(f"pictures/{first['id']}/view", {"scale": 2})
    assert line == "this picture: is no longer open: the page keeps the last 4; open it again"
    assert len(list(server.folder.iterdir())) == studio_module.MOST_OPEN


# ---- bad input


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("text.png", b"hello", "text.png: is not an image that can be read; save it as PNG, TIFF, WebP, JPEG or BMP"),
        ("empty.png", b"", "empty.png: is an empty file; give an image"),
        ("half.png", None, "half.png: is truncated: the PNG has no end"),
        ("photo.gif", b"GIF89a" + bytes(50), "photo.gif: is a GIF file, which is not supported"),
        ("<b>&\n\x1b[2J.png", b"hello", "_b_&__[2J.png: is not an image"),
        ("../../../etc/passwd", b"hello", "passwd: is not an image"),
        ("C:\\Users\\me\\a.png", b"hello", "a.png: is not an image"),
        ("", b"hello", "picture: is not an image"),
        ("x" * 3000 + ".png", b"hello", "x" * 80 + ".png: is not an image"),
    ],
)
def test_a_broken_file_says_so(server, blurred, name, data, line):
    data = blurred.read_bytes()[:900] if data is None else data
    before = set(server.folder.iterdir())
    assert server.refused(f"pictures?name={urllib.request.quote(name)}", data).startswith(line)
    assert set(server.folder.iterdir()) == before, "nothing stays"


def test_a_small_picture(server, photo, tmp_path):
    write_image(tmp_path / "tiny.png", photo[:20, :20])
    assert "tiny.png: is 20x20 pixels, too small to adapt" in server.refused(
        "pictures?name=tiny.png", (tmp_path / "tiny.png").read_bytes()
    )


def test_an_upload_that_is_too_large(server, blurred):
    """With and without its length told before; what is sent is listened to, so that a browser hears the answer."""
    line = server.refused("pictures?name=big.png", bytes(100_000_000))
    assert line.startswith(
        "big.png: is larger than the 8 MB that this page takes; darsr upscale takes files of any size"
    )
    connection = http.client.HTTPConnection(server.url[7:-1])
    headers = {"Origin": server.url[:-1]}
    connection.request("POST", "/pictures?name=big.png", iter([bytes(1_000_000)] * 20), headers, encode_chunked=True)
    assert "is larger than" in json.loads(connection.getresponse().read())["error"]
    assert server.open(blurred)["width"] == 96


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "cannot be understood"),
        (b"[]", "cannot be understood"),
        (b"null", "cannot be understood"),
        (b"\xff", "cannot be understood"),
        (b'{"amount": "much"}', "an option that is no number"),
        (b'{"amount": NaN}', "--amount nan: expected 0.1 to 4"),
        (b'{"amount": 9}', "--amount 9: expected 0.1 to 4"),
        (b'{"scale": 3}', "--scale 3: expected 2 or 4"),
        (b'{"place": [1]}', "cannot be understood"),
        (b'{"place": ["x", null]}', "cannot be understood"),
        (b'{"place": [Infinity, 1]}', "cannot be understood"),
        (b" " * 20_000, "is too long"),
    ],
)
def test_a_request_that_makes_no_sense(server, blurred, body, why):
    assert why in server.refused(f"pictures/{server.open(blurred)['id']}/view", body)


def test_what_is_not_there(server, blurred):
    opened = server.open(blurred)
    assert "there is no such page here" in server.refused("favicon.ico", status=404)
    assert "is no longer open" in server.refused("pictures/nothing")
    assert "is not made yet" in server.refused(f"pictures/{opened['id']}/files/blurred_x2.png")
    assert "kind exe: is not known" in server.refused(f"pictures/{opened['id']}/files", {"kind": "exe"})


def test_a_bug_is_a_sentence_too(server, blurred, monkeypatch, capfd):
    opened = server.open(blurred)
    monkeypatch.setattr(studio_module, "build_adapter", lambda *_, **__: 1 / 0)
    line = server.refused(f"pictures/{opened['id']}/view", {"scale": 2}, status=500)
    assert line == "the program: has failed (ZeroDivisionError: division by zero); its terminal says more"
    assert "ZeroDivisionError" in capfd.readouterr().err
    monkeypatch.undo()
    assert server.view(opened)["after"]


# ---- connections that end


def test_a_connection_that_closes_in_an_upload(server, blurred):
    before = set(server.folder.iterdir())
    connection = http.client.HTTPConnection(server.url[7:-1])
    connection.putrequest("POST", "/pictures?name=half.png")
    for name, value in {"Origin": server.url[:-1], "Content-Length": "1000000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"\x89PNG")
    connection.close()
    assert server.open(blurred)["width"] == 96
    assert len(set(server.folder.iterdir()) - before) == 1, "the half is gone"


def test_a_connection_that_closes_in_mid_work(server, blurred, monkeypatch):
    """What runs ends at its next tile, what waits in the queue is not begun, and the server goes on."""
    opened, entered, ended, begun = server.open(blurred), threading.Event(), threading.Event(), []

    def slow(task, report):
        begun.append(task)
        entered.set()
        try:
            while True:
                report({"step": 3, "steps": 9})
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr("export.page.files.upscale_picture", slow)
    connections = []
    for kind in ("png", "jpg"):
        connections.append(http.client.HTTPConnection(server.url[7:-1]))
        body = json.dumps({"kind": kind})
        connections[-1].request("POST", f"/pictures/{opened['id']}/files", body, {"Origin": server.url[:-1]})
        assert entered.wait(10)
    assert server.done(f"pictures/{opened['id']}") == {"step": 3, "steps": 9}, "it answers meanwhile"
    for connection in reversed(connections):
        connection.close()
        time.sleep(0.6)
    assert ended.wait(10)
    monkeypatch.undo()
    assert server.view(opened)["after"] and len(begun) == 1


def test_who_waits_too_long_is_told(server, blurred, monkeypatch):
    opened, free = server.open(blurred), threading.Event()
    monkeypatch.setattr("export.page.app._VIEW", 0.1)
    monkeypatch.setattr(studio_module, "build_adapter", lambda *_, **__: free.wait(10))
    line = server.refused(f"pictures/{opened['id']}/view", {"scale": 2}, status=503)
    assert line == "the machine: is still busy with other pictures; try again in a moment"
    free.set()
    monkeypatch.undo()
    assert server.view(opened)["after"]


# ---- who may ask


def test_other_pages_cannot_drive_it(server, blurred):
    data = blurred.read_bytes()
    for headers, why in (
        ({"Origin": "https://evil.example"}, "comes from another web page"),
        ({"Origin": "null"}, "comes from another web page"),
        ({"Origin": ""}, "comes from another web page"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "evil.example: is not the name of this machine"),
        ({"Host": "192.168.1.7:7272", "Origin": "http://192.168.1.7:7272"}, "is not the name of this machine"),
    ):
        status, body = server.ask("pictures?name=a.png", data, **headers)
        assert status == 403 and why in json.loads(body)["error"], headers
    assert server.ask("", Host="evil.example")[0] == 403
    port = server.url.rpartition(":")[2].strip("/")
    status, _ = server.ask("pictures?name=a.png", data, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")
    assert status == 200


def test_hosts_that_are_known():
    own = Access(local=False)
    for host in ("127.0.0.1:7272", "localhost", "[::1]:80", "LOCALHOST:1"):
        assert Access().knows(host) and own.knows(host)
    for host in ("192.168.1.7:80", "[fe80::1]:80", os.uname().nodename if hasattr(os, "uname") else "10.0.0.1"):
        assert own.knows(host) and not Access().knows(host)
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
        assert not own.knows(host) and not Access().knows(host)


def test_the_page_loads_nothing_from_elsewhere(server):
    for part in PARTS:
        with urllib.request.urlopen(server.url + part) as answer:
            text, headers = answer.read().decode(), answer.headers
        assert set(re.findall(r"https?://([\w.-]+)", text)) <= {"www.w3.org"}, "a namespace"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' blob: data:;") and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
        assert not re.search(r"\son\w+=|<script>|style=", text) or not part.endswith("html")
    page = server.ask("")[1].decode()
    assert "It stays on this machine." in page and 'data-megabytes="8"' in page


# ---- the command


def test_ports(monkeypatch):
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DarsrError, match=rf"--port {port}: is in use by another program; choose another"):
            bind("127.0.0.1", port)
        monkeypatch.setattr("export.page.server.PORT", port)
        with bind("127.0.0.1", None) as following:
            assert following.getsockname()[1] > port
    with pytest.raises(DarsrError, match=r"--host nowhere.invalid: is not an address of this machine"):
        bind("nowhere.invalid", None)
    assert PORT == 7272


@pytest.fixture
def served(monkeypatch):
    """The command without a server that runs."""
    opened = []
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    return opened


def test_the_network_is_said_loudly(served):
    result = done("ui", "--host", "0.0.0.0", "--port", "0", "--no-browser")
    warning, line = result.stderr.splitlines()
    assert warning.startswith("WARNING: --host 0.0.0.0 opens the page to everybody who reaches this machine")
    assert re.fullmatch(r"darsr ui: http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)", line) and not served
    result = done("ui", "--port", "0")
    (line,) = result.stderr.splitlines()
    for _ in range(100):
        if served:
            break
        time.sleep(0.01)
    assert served == [line.split()[2]]
    refused("ui", "--host", "nowhere.invalid", name="--host nowhere.invalid: is not an address of this machine")


def test_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "export.page.server", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "export.page.server")
    assert "needs uvicorn, which is not installed; install it: " in refused("ui", name="darsr ui")
    monkeypatch.setattr("darsr_deploy.engines.ort.installed_runtimes", list)
    assert "needs ONNX Runtime" in refused("ui", name="darsr ui")


def test_neither_pytorch_nor_onnx_is_needed(blurred, tmp_path):
    """In a process of its own, in which neither is there; Ctrl-C ends it and leaves nothing behind."""
    modules, temporary = tmp_path / "modules", tmp_path / "temporary"
    modules.mkdir()
    temporary.mkdir()
    hidden = dict.fromkeys(("torch", "onnx", "onnxscript", "skimage"))
    (modules / "sitecustomize.py").write_text(f"import sys\nsys.modules.update({hidden})\n")
    paths = os.pathsep.join([str(modules), str(Path(cli.__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "DARSR_CACHE": str(tmp_path / "cache"), "TMPDIR": str(temporary)}
    command = [sys.executable, cli.__file__, "ui", "--no-browser", "--port", "0", "--threads", "1"]
    listening = {"preexec_fn": heed_ctrl_c, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **listening) as process:
        try:
            url = process.stderr.readline().split()[2]

            def ask(path: str, data: bytes) -> dict:
                request = urllib.request.Request(url + path, data, {"Origin": url[:-1]})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())

            opened = ask("pictures?name=a.png", blurred.read_bytes())
            assert ask(f"pictures/{opened['id']}/view", b"{}")["decision"].endswith(": corrected")
            assert ask(f"pictures/{opened['id']}/files", b'{"kind": "png"}')["name"] == "a_x2.png"
            with urllib.request.urlopen(url) as answer:
                page = answer.read().decode()
            assert re.search(r'data-missing="An ONNX file needs the extra train and export: .*pip install', page)
            assert any(temporary.iterdir())
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stderr.read() == "interrupted\n"
            assert not any(temporary.iterdir())
        finally:
            process.kill()


def test_names_and_wishes():
    assert Wanted(4, 0.5, 1.0, 0.25).words() == "--scale 4 --amount 0.5 --deblock 0.25"
    assert Wanted().options().to_json() == Wanted(2, 1, 1, 1).options().to_json()


def test_an_upload_keeps_its_name(tmp_path):
    for name in ("photo.jpg", "été à la mer.png", "写真.webp"):
        assert place_upload(tmp_path, name).name == name


def test_the_adapter_is_whole(server, blurred, tmp_path):
    name, data = server.file(server.open(blurred), "adapter", amount=0.7)
    (tmp_path / name).write_bytes(data)
    assert Adapter.load(tmp_path / name).facts["options"]["amount"] == 0.7
