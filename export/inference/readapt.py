"""Adapt to frames of a video: to one at first, and again in the background where its scene changes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import darsr_deploy
from darsr_deploy.bundle.shipped import is_default
from darsr_deploy.engines.base import Engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.images.arrays import write_image
from darsr_deploy.video.scenes import SceneCuts
from darsr_train.backbones.store import locate
from darsr_train.runtime import checked_options, open_networks, require_torch

OpenAdapter = Callable[[Path], Engine]


class _Cancelled(Exception):
    """The result of a running adaptation is no longer wanted."""


def require_adapting(backbone: str | None, scale: int) -> None:
    """Check that frames can be adapted to here: with the default backbone a runtime is enough.

    Raises:
        DarsrError: what is missing.
    """
    if _comes_with_networks(backbone, scale):
        open_networks(scale)
    else:
        require_torch()


def _comes_with_networks(backbone: str | None, scale: int) -> bool:
    return is_default(hash_file(locate(backbone or "edge", scale)), scale)


def adapt_to_frame(
    pixels: np.ndarray,
    out: Path,
    backbone: str | None,
    scale: int,
    report: Callable[[dict], None] = lambda _: None,
    *,
    threads: int = 0,
    **wishes: float | None,
) -> None:
    """Adapt to one frame with profile ``fast`` and write the adapter ``out``.

    Args:
        threads: of the CPU that it may use; 0 leaves it to the runtime.
        wishes: ``amount``, ``denoise`` and ``deblock`` of :class:`darsr_train.adaptation.options.AdaptOptions`.

    Raises:
        DarsrError: the frame cannot be adapted to (too small).
    """
    options = checked_options("fast", scale, **wishes)
    if _comes_with_networks(backbone, scale):
        asked = {"amount": options.amount, "denoise": options.denoise, "deblock": options.deblock}
        adapter = darsr_deploy.adapt(pixels, scale, networks=open_networks(scale, threads=threads), **asked)
        replace(adapter, facts=adapter.facts | {"options": options.to_json()}).save(out)
        return
    from darsr_train.adaptation.adapt import adapt_image
    from darsr_train.backbones import load_backbone

    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.png"
        write_image(frame, pixels)
        adapt_image(frame, out, load_backbone(backbone or "edge", scale), options, report=report)


class Readaptation:
    """Give every frame its engine: the old one until the adaptation to a new scene is done.

    One adaptation runs at a time, in a thread of its own; a further cut makes it stop, and the newer scene's begins.

    Args:
        engine: what the video begins with; closed when another takes over.
        adapt: writes an adapter for a frame to a path; called in the thread, with a report that may raise.
        opener: from an adapter file to an engine; called in the thread.
        say: told about scenes and about adaptations that failed, after which the old engine stays.
    """

    def __init__(
        self,
        engine: Engine,
        adapt: Callable[[np.ndarray, Path, Callable[[dict], None]], None],
        opener: OpenAdapter,
        say: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self._adapt, self._open, self._say = adapt, opener, say
        self._cuts, self._folder = SceneCuts(), tempfile.TemporaryDirectory()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self._waiting: tuple[int, np.ndarray] | None = None  # the newest scene that nobody has begun with
        self._ready: list[Engine] = []
        self._lock = threading.Lock()
        self._count = 0
        self.changes = 0  # how often another engine took over

    def engine_for(self, pixels: np.ndarray) -> Engine:
        """Return the engine for the next frame of the video; to be called for every frame, in order."""
        self._count += 1
        if self._cuts(pixels):
            self._cancel.set()
            self._waiting = (self._count, pixels)
        if self._waiting and not (self._thread and self._thread.is_alive()):
            number, frame = self._waiting
            self._waiting, self._cancel = None, threading.Event()
            self._say(f"frame {number}: a new scene, adapting to it in the background")
            self._thread = threading.Thread(target=self._run, args=(number, frame, self._cancel), daemon=True)
            self._thread.start()
        with self._lock:
            for engine in self._ready:
                _close(self.engine)
                self.engine, self.changes = engine, self.changes + 1
                self._say(f"frame {self._count}: the new scene's adapter takes over")
            self._ready.clear()
        return self.engine

    def close(self) -> None:
        """Stop what runs in the background, and wait until it has."""
        self._cancel.set()
        if self._thread:
            self._thread.join()
        for engine in (*self._ready, *([self.engine] if self.changes else [])):  # the first one is its opener's
            _close(engine)
        self._folder.cleanup()

    def _run(self, number: int, frame: np.ndarray, cancel: threading.Event) -> None:
        def report(_: dict) -> None:
            if cancel.is_set():
                raise _Cancelled

        try:
            path = Path(self._folder.name) / f"{number}.darsr"
            self._adapt(frame, path, report)
            report({})
            engine = self._open(path)
        except _Cancelled:
            return
        except DarsrError as error:
            self._say(f"frame {number}: not adapted to ({error})")
            return
        with self._lock:
            if not cancel.is_set():
                self._ready.append(engine)


def _close(engine: Engine) -> None:
    engine.__exit__(None, None, None)
