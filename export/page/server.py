"""Serve the page: a port of this machine, a browser that opens it, and an end that leaves nothing behind."""

from __future__ import annotations

import errno
import ipaddress
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from darsr_deploy.errors import DarsrError

from .app import Page
from .guard import Access
from .studio import Studio
from .worker import Worker

PORT = 7272
_TRIED = 20  # ports, where none is asked for
_PATIENCE = 2  # seconds that requests have when the program ends


def serve(
    host: str, port: int | None, megabytes: float, threads: int, *, browser: bool, say: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        port: None for :data:`PORT`, or the next free one.
        megabytes: the most that an upload may have.
        threads: of the CPU for the work; 0 leaves it to the runtime.
        browser: whether to open the page in one.
        say: told the address, and who may use it.

    Raises:
        DarsrError: a host that is not one of this machine, or a port that is taken.
    """
    listening, worker = bind(host, port), Worker()
    name, number = listening.getsockname()[:2]
    address = ipaddress.ip_address(name.partition("%")[0])
    shown = "127.0.0.1" if address.is_unspecified else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{number}/"
    with listening, tempfile.TemporaryDirectory(prefix="darsr-ui-") as folder:
        running = server(Page(Studio(Path(folder), threads), worker, Access(address.is_loopback, megabytes)))
        if not address.is_loopback:
            who = "everybody who reaches this machine over the network, without a password and unencrypted"
            say(f"WARNING: --host {host} opens the page to {who}; without --host it is open to this machine alone")
        say(f"darsr ui: {url}  (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()  # the socket listens already
        try:
            running.run(sockets=[listening])
        finally:
            worker.close()


def server(page: Page) -> uvicorn.Server:
    """Return a server that writes nothing but errors and takes no more than the page needs."""
    return uvicorn.Server(
        uvicorn.Config(
            page.app(), http="h11", ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
            proxy_headers=False, limit_concurrency=64, timeout_graceful_shutdown=_PATIENCE,
        )
    )  # fmt: skip


def bind(host: str, port: int | None) -> socket.socket:
    """Listen on a port: the one asked for, or the first free one from :data:`PORT` on.

    Raises:
        DarsrError: it is taken, or the host is not one of this machine.
    """
    ports = range(PORT, PORT + _TRIED) if port is None else [port]
    for one in ports:
        try:
            family = socket.getaddrinfo(host, one, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, one), family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EACCES:
                raise DarsrError(f"--port {one}", "is not open to this user", "choose one from 1024 on") from error
            why = f"is not an address of this machine ({error.strerror or error})"
            raise DarsrError(f"--host {host}", why, "leave it out, or give 0.0.0.0 for all of them") from error
    asked, verb = (f"--port {port}", "is") if port is not None else (f"ports {PORT} to {ports[-1]}", "are")
    raise DarsrError(asked, f"{verb} in use by another program", "choose another one with --port")
