"""The page of ``darsr ui`` on a free port of this machine, and requests to it as a browser makes them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Server:
    """A running page.

    Attributes:
        url: with a slash at its end.
        folder: of uploads.
    """

    url: str
    folder: Path
    studio: object
    worker: object

    def ask(self, path: str, data: bytes | dict | None = None, **headers: str) -> tuple[int, bytes]:
        """Ask for a path, with data by POST; returns status and body."""
        if isinstance(data, dict):
            data = json.dumps(data).encode()
        headers = {"Origin": self.url[:-1]} | headers
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def done(self, path: str, data: bytes | dict | None = None) -> dict:
        """Ask for what must succeed."""
        status, body = self.ask(path, data)
        value = json.loads(body)
        assert status == 200 and "error" not in value, (status, value)
        return value

    def refused(self, path: str, data: bytes | dict | None = None, status: int = 200) -> str:
        """Ask for what must fail; returns the sentence."""
        found, body = self.ask(path, data)
        assert found == status, (found, body)
        return json.loads(body)["error"]

    def open(self, file: Path | bytes, name: str = "") -> dict:
        """Upload a picture."""
        data, name = (file, name) if isinstance(file, bytes) else (file.read_bytes(), name or file.name)
        return self.done(f"pictures?name={urllib.parse.quote(name)}", data)

    def view(self, opened: dict, **wishes: object) -> dict:
        return self.done(f"pictures/{opened['id']}/view", {"scale": 2, **wishes})

    def file(self, opened: dict, kind: str, **wishes: object) -> tuple[str, bytes]:
        """Make a file and fetch it; returns its name and bytes."""
        name = self.done(f"pictures/{opened['id']}/files", {"kind": kind, "scale": 2, **wishes})["name"]
        status, body = self.ask(f"pictures/{opened['id']}/files/{urllib.parse.quote(name)}")
        assert status == 200
        return name, body


@contextlib.contextmanager
def serving(folder: Path, megabytes: float = 8) -> Iterator[Server]:
    """Serve the page; it works with one thread, as the tests do."""
    from export.page.app import Page
    from export.page.guard import Access
    from export.page.server import bind, server
    from export.page.studio import Studio
    from export.page.worker import Worker

    worker, listening = Worker(), bind("127.0.0.1", 0)
    studio = Studio(folder, threads=1)
    running = server(Page(studio, worker, Access(True, megabytes)))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}/", folder, studio, worker)
    finally:
        running.should_exit = True
        thread.join()
        worker.close()
        listening.close()


def decoded(uri: str) -> np.ndarray:
    """Decode a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
