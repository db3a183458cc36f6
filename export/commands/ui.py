"""``darsr ui``: a page in the browser that does what ``darsr upscale`` does."""

from __future__ import annotations

from typing import Annotated

import typer

from darsr_deploy.console.command import Failures, MaxPixels, Threads, command, say
from darsr_deploy.errors import DarsrError
from darsr_deploy.install import install


@command
def ui(
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="7272, or the next that is free; 0 for any.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but the default opens the page to the network.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    max_megabytes: Annotated[
        float, typer.Option(min=0.001, help="Most megabytes of a picture that is dropped on it.")
    ] = 64,
    max_pixels: MaxPixels = None,
    threads: Threads = 0,
    failures: Failures = None,
) -> None:
    """Open a page in the browser: drop a photograph, see what was found, steer it, save the result."""
    from darsr_deploy.engines.ort import installed_runtimes

    if not installed_runtimes():
        raise DarsrError("darsr ui", "needs ONNX Runtime, which is not installed", f"install it: {install('ort')}")
    try:
        from ..page.server import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11", "click"):
            raise
        why = f"needs {error.name}, which is not installed"
        raise DarsrError("darsr ui", why, f"install it: {install('ui')}") from error
    serve(host, port, max_megabytes, threads, browser=not no_browser, say=say)
