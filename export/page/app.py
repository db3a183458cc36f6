"""The page's application: it takes pictures in, and answers each request with JSON whose ``error`` is a sentence."""

from __future__ import annotations

import asyncio
import html
import importlib.metadata
import json
import os
import re
import shutil
import traceback
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from darsr_deploy.errors import DarsrError

from .files import make_file, missing_for_onnx
from .guard import Access, Guard, sentence
from .studio import Made, Studio, Wanted, place_upload
from .worker import Gone, Late, Ticket, Worker

_SILENCE = 30  # seconds that an upload may pause
_VIEW, _FILE = 120, 6 * 3600  # seconds that a request may take, those in the queue included
_WISHES = ("scale", "amount", "denoise", "deblock")
_MOST_JSON = 10_000  # bytes of a request
_DROPPED = 1 << 30  # bytes of a large upload that are still listened to
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class Page:
    """The routes, over a studio and the thread that works for it."""

    def __init__(self, studio: Studio, worker: Worker, access: Access) -> None:
        self.studio, self.worker, self.access = studio, worker, access
        self._parts = self._load_parts()

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/", self._part),
            Route("/{name}", self._part),
            Route("/pictures", self._answer(self._open), methods=["POST"]),
            Route("/pictures/{id}", self._answer(self._progress)),
            Route("/pictures/{id}/view", self._answer(self._view), methods=["POST"]),
            Route("/pictures/{id}/files", self._answer(self._make), methods=["POST"]),
            Route("/pictures/{id}/files/{name}", self._answer(self._file)),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Guard, access=self.access)])

    def _answer(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Turn what goes wrong into a sentence; what nobody expected is also written to the terminal."""

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except DarsrError as error:  # an answer like another, of which no browser's console speaks
                return sentence(200, self._in_words(str(error)))
            except Late:
                return sentence(503, "the machine: is still busy with other pictures; try again in a moment")
            except (Gone, ClientDisconnect):  # nobody reads the answer
                return Response(status_code=499)
            except asyncio.TimeoutError:
                return sentence(408, f"the upload: nothing came for {_SILENCE} seconds; try again")
            except MemoryError:
                return sentence(200, "memory: does not suffice; give a smaller picture, or close other programs")
            except Exception as error:
                traceback.print_exc()
                why = f"has failed ({type(error).__name__}: {error}); its terminal says more"
                return sentence(500, f"the program: {why}")

        return answered

    def _in_words(self, text: str) -> str:
        """Return a line without the folders of this program and the options of the command line."""
        own = re.escape(f"{self.studio.folder}{os.sep}") + r"\w+" + re.escape(os.sep) + f"(made{re.escape(os.sep)})?"
        return re.sub(own, "", text).replace(" with -o", "")

    def _load_parts(self) -> dict[str, tuple[str, str]]:
        here, report = files(__package__), files(f"{__package__.rpartition('.')[0]}.report")
        places = {"page.html": here, "page.css": here, "page.js": here, "viewer.css": report, "viewer.js": report}
        texts = {name: place.joinpath(name).read_text(encoding="utf-8") for name, place in places.items()}
        other = "It goes to the machine that serves this page, and no further."
        where = "It stays on this machine." if self.access.local else other
        values = {"where": where, "megabytes": f"{self.access.megabytes:g}", "no_onnx": missing_for_onnx() or ""}
        values = {name: html.escape(value) for name, value in values.items()}
        page = Template(texts["page.html"]).substitute(values, version=importlib.metadata.version("darsr"))
        return {name: (text, _TYPES[name.rpartition(".")[2]]) for name, text in (texts | {"page.html": page}).items()}

    async def _part(self, request: Request) -> Response:
        name = request.path_params.get("name", "page.html")
        if name not in self._parts:
            return sentence(404, f"{name}: there is no such page here; open the one at /")
        text, kind = self._parts[name]
        return Response(text, media_type=kind)

    async def _open(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        file = place_upload(self.studio.folder, name)
        kept = False
        try:
            if not await _receive(request, file, self.access.megabytes * 1e6):
                why = f"is larger than the {self.access.megabytes:g} MB that this page takes"
                raise DarsrError(
                    file.name, why, "darsr upscale takes files of any size, and so does darsr ui --max-megabytes"
                )
            answer = await self._work(request, lambda _: self.studio.open(file), _VIEW)
            kept = True
            return JSONResponse(answer)
        finally:
            if not kept:
                shutil.rmtree(file.parent, ignore_errors=True)

    async def _progress(self, request: Request) -> Response:
        return JSONResponse(dict(zip(("step", "steps"), self.studio.get(request.path_params["id"]).progress)))

    async def _view(self, request: Request) -> Response:
        opened, wanted, values = await self._wanted(request)
        place, before = values.get("place"), bool(values.get("before", True))
        return JSONResponse(await self._work(request, lambda _: self.studio.view(opened, wanted, place, before), _VIEW))

    async def _make(self, request: Request) -> Response:
        opened, wanted, values = await self._wanted(request)

        def work(ticket: Ticket) -> Made:
            def report(entry: dict) -> None:
                ticket.check()
                opened.progress = entry["step"], entry["steps"]

            opened.progress = 0, 0
            return make_file(opened, wanted, str(values.get("kind")), self.studio.threads, report)

        made = await self._work(request, work, _FILE)
        return JSONResponse({"name": made.path.name, "note": self._in_words(made.note)})

    async def _file(self, request: Request) -> Response:
        opened, name = self.studio.get(request.path_params["id"]), request.path_params["name"]
        for path in [made.path for made in list(opened.made.values())]:
            if path.name == name and path.is_file():
                return FileResponse(path, filename=name)
        raise DarsrError(name, "is not made yet", "choose it under Save")

    async def _wanted(self, request: Request) -> tuple[Any, Wanted, dict]:
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > _MOST_JSON:
                raise DarsrError("the request", "is too long", "reload the page")
        try:
            values = json.loads(data)
            wanted = Wanted(**{name: values[name] for name in _WISHES if name in values})
            if (place := values.get("place")) is not None:
                x, y = place
                values["place"] = round(x), round(y)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DarsrError("the request", f"cannot be understood ({error})", "reload the page") from error
        return self.studio.get(request.path_params["id"]), wanted, values

    async def _work(self, request: Request, work: Callable[[Ticket], Any], seconds: float) -> Any:
        return await self.worker.run(work, seconds, request.is_disconnected)


async def _receive(request: Request, file: Path, most: float) -> bool:
    """Write an upload to a file as it comes; return whether it was all of it and not too much.

    Of one that is too large the rest is read and dropped: a browser does not listen before it has sent everything.
    """
    size, stream = 0, aiter(request.stream())
    with open(file, "wb") as target:
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), _SILENCE)
            except StopAsyncIteration:
                return size <= most
            size += len(chunk)
            if size <= most:
                target.write(chunk)
            elif size > most + _DROPPED:
                return False
