"""A runtime bundle in ONNX Runtime: a folder of graphs that runs any adapter of its architecture, without an export.

The backbone is opened once for all adapters. An adapter brings the weights of the correction and the kernel of
back-projection, which become constants of their graphs (:mod:`darsr_deploy.files.onnx_bytes`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.ort import open_session, run_session
from ..files.adapter import Adapter
from ..files.onnx_bytes import bind
from .adapter_inputs import bind_adapter
from .engine import BundleEngine
from .graphs import GRAPHS, Step
from .manifest import MANIFEST, Manifest


def open_bundle(folder: str | Path, provider: str = "cpu", threads: int = 0) -> Bundle:
    """Open a bundle and keep it open for the next adapter of this process; anew where its manifest has changed.

    Raises:
        DarsrError: as :class:`Bundle`.
    """
    path = Path(folder) / MANIFEST
    stamp = path.read_bytes() if path.is_file() else b""
    return _kept(str(folder), os.getcwd(), provider, threads, stamp)


@functools.lru_cache(maxsize=4)  # images of a folder may need several: noisy, blurred, sharp ones
def _kept(folder: str, base: str, provider: str, threads: int, stamp: bytes) -> Bundle:
    return Bundle(folder, provider, threads)


class Bundle:
    """An opened bundle. Adapters share its backbone.

    Args:
        folder: written by ``darsr export --split``.
        provider: ``cpu`` or ``cuda``, as :func:`darsr_deploy.engines.ort.open_session`.
        threads: 0 lets ONNX Runtime choose.

    Raises:
        DarsrError: a file is missing or is not the one that the manifest lists.
    """

    def __init__(self, folder: str | Path, provider: str = "cpu", threads: int = 0) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(folder)
        self.spec = self.manifest.spec
        self._provider, self._threads = provider, threads
        self._graphs = {graph: self.manifest.read(self.folder, f"{graph}.onnx") for graph in GRAPHS}
        self._shared: dict[str, object] = {}

    def own_adapter(self) -> Path | None:
        """Return the adapter that the bundle was exported from, if it holds it."""
        return self.manifest.own_adapter(self.folder)

    def engine(self, adapter: Adapter | None, what: str | Path = "adapter", sha256: str = "") -> OrtBundleEngine:
        """Return an engine for an adapter; the backbone alone for None.

        Args:
            what: the adapter's name in errors.
            sha256: of the adapter's file, for the engine's spec.

        Raises:
            DarsrError: the adapter is of another scale, backbone or architecture than the bundle.
        """
        return OrtBundleEngine(self, adapter, str(what), sha256)

    def session(self, graph: str, arrays: dict[str, np.ndarray] | None = None) -> Any:
        """Return a session of one graph: with arrays as its constants, or without any, opened once and shared."""
        what = self.folder / f"{graph}.onnx"
        if arrays is not None:
            return open_session(bind(self._graphs[graph], arrays), what, self._provider, self._threads)
        if graph not in self._shared:
            keep = self.manifest.bound_shapes(graph)  # it may be opened again, with other arrays
            data = self._graphs[graph] if keep else self._graphs.pop(graph)
            self._shared[graph] = open_session(data, what, self._provider, self._threads)
        return self._shared[graph]


class OrtBundleEngine(BundleEngine):
    """One adapter in a bundle in ONNX Runtime: its arrays are constants of the graphs.

    A runtime that knows them when it opens a graph can rearrange them once and fuse what follows.
    """

    name = "ort"

    def __init__(self, bundle: Bundle, adapter: Adapter | None, what: str, sha256: str) -> None:
        inputs = bind_adapter(adapter, bundle.manifest, str(bundle.folder), what)
        super().__init__(bundle.manifest, inputs, sha256)
        self._bundle = bundle
        self._sessions: dict[str, object] = {}  # the graphs of tiles are opened when the first one comes
        for graph in inputs.graphs:
            self._session(graph)
        self.provider = self._session("backbone").get_providers()[0]

    def __enter__(self) -> OrtBundleEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._sessions.clear()

    def _session(self, graph: str) -> Any:
        if graph not in self._sessions:
            bound = self._bundle.manifest.bound_shapes(graph)
            arrays = {name: self.inputs.arrays[name] for name in bound} or None
            self._sessions[graph] = self._bundle.session(graph, arrays)
        return self._sessions[graph]

    def _execute(self, steps: list[Step], feeds: dict[str, np.ndarray]) -> np.ndarray:
        buffers = dict(feeds)
        for step in steps:
            buffers.pop(step.to, None)  # of an earlier round: its memory is needed
            given = {name: buffers[buffer] for name, buffer in step.inputs.items()}
            buffers[step.to] = run_session(self._session(step.graph), step.output, given, str(self._bundle.folder))
        return buffers[steps[-1].to]
