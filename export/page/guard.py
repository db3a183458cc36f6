"""Who may use the page: the browser that has it open, by its own name for this machine, and no page of others."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may use the page.

    Attributes:
        local: it is bound to the loopback interface.
        megabytes: the most that an upload may have.
    """

    local: bool = True
    megabytes: float = 64

    def knows(self, host: str) -> bool:
        """Tell whether a Host header names this machine: a web page of others that points its own name here does not.

        Bound to more than the loopback interface, it may also be an address, or the name of this machine.
        """
        name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in _LOCAL:
            return True
        if self.local:
            return False
        own = socket.gethostname().lower()
        return name in (own, own.partition(".")[0], f"{own.partition('.')[0]}.local") or _is_address(name)


class Guard:
    """Lets through only what this page itself asks for, and adds the headers that keep it to itself."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to other hosts and origins."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        answer: ASGIApp = self.app
        if not self.access.knows(host):
            answer = sentence(
                403, f"{host or 'the request'}: is not the name of this machine; use the address that darsr ui shows"
            )
        elif request.method not in ("GET", "HEAD") and origin != f"http://{host}":
            answer = sentence(403, "the request: comes from another web page; use the address that darsr ui shows")
        await answer(scope, receive, send_with_headers)


def sentence(status: int, text: str) -> JSONResponse:
    """Return an error as the page shows it."""
    return JSONResponse({"error": text}, status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
