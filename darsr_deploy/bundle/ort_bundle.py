"""The runtime bundle: a folder of ONNX graphs that runs any adapter of its architecture, with no export in between.

``bundle.json`` lists the files with their checksums, the contract and what tiles need. The backbone is opened once for all
adapters; an adapter brings the weights of the correction, which become constants of its graphs (:mod:`darsr_deploy.files.onnx_bytes`), and the kernel
of back-projection. See :mod:`export.onnx_graphs.pieces` for the graphs.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from ..engines.base import check_input
from ..engines.ort import open_session, run_session
from ..files.adapter import Adapter
from ..files.onnx_bytes import bind
from .adapter_inputs import bind_adapter
from .manifest import GRAPHS, MANIFEST, Manifest


def open_bundle(folder: str | Path, provider: str = "cpu", threads: int = 0) -> Bundle:
    """Open a bundle and keep it open for the next adapter of this process; anew where its manifest has changed.

    Raises:
        DarsrError: as :class:`Bundle`.
    """
    path = Path(folder) / MANIFEST
    stamp = path.read_bytes() if path.is_file() else b""
    return _kept(str(folder), os.getcwd(), provider, threads, stamp)


@functools.lru_cache(maxsize=1)
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
        self._sessions: dict[str, object] = {}

    def own_adapter(self) -> Path | None:
        """The adapter that the bundle was exported from, if it holds it."""
        return self.manifest.own_adapter(self.folder)

    def engine(self, adapter: Adapter | None, what: str | Path = "adapter", sha256: str = "") -> BundleEngine:
        """An engine for an adapter; the backbone alone for None.

        Args:
            what: the adapter's name in errors.
            sha256: of the adapter's file, for the engine's spec.

        Raises:
            DarsrError: the adapter is of another scale, backbone or architecture than the bundle.
        """
        return BundleEngine(self, adapter, str(what), sha256)

    def session(self, graph: str, weights: dict[str, np.ndarray] | None = None):
        """A session of one graph. Without weights it is opened once and shared."""
        if weights is not None:
            data = bind(self._graphs[graph], weights)
            return open_session(data, self.folder / f"{graph}.onnx", self._provider, self._threads)
        if graph not in self._sessions:
            what = self.folder / f"{graph}.onnx"
            self._sessions[graph] = open_session(self._graphs.pop(graph), what, self._provider, self._threads)
        return self._sessions[graph]


class BundleEngine:
    """One adapter in a bundle. See :class:`darsr_deploy.engines.base.Engine` and :class:`darsr_deploy.engines.base.Tileable`.

    Attributes:
        weights: of the correction network, float32; None without one.
        coefficients: of one filter for all pixels, 1 x 13 x 1 x 1; None without one.
        kernel, rounds: of back-projection; None and 0 without.
    """

    name = "ort"

    def __init__(self, bundle: Bundle, adapter: Adapter | None, what: str, sha256: str) -> None:
        self._bundle, fitted = bundle, bind_adapter(adapter, bundle.manifest, str(bundle.folder), what)
        self.weights, self.coefficients, self.kernel = fitted.weights, fitted.coefficients, fitted.kernel
        self.rounds, self.stages, self.locality = fitted.rounds, fitted.stages, fitted.locality
        self.spec = bundle.spec.extended(form=fitted.kind, adapter_sha256=sha256)
        self._correction = bundle.session("correction", self.weights) if self.weights else None
        self._backbone = bundle.session("backbone")
        self._backprojection = bundle.session("backprojection", {"kernel": self.kernel}) if self.rounds else None
        self.provider = self._backbone.get_providers()[0]
        self._tile: dict[str, object] = {}  # the graphs that only tiles need, opened when the first one comes

    def run(self, lr: np.ndarray) -> np.ndarray:
        lr = check_input(lr)
        if self._correction is not None:
            return self._finish(lr, self._run(self._correction, "corrected", {"lr": lr}))
        return self._finish(lr, self._filtered(lr))

    def check_size(self, lr: np.ndarray) -> None:
        """Any size will do."""

    def sums(self, lr: np.ndarray, core: np.ndarray, pooled: list[np.ndarray]) -> np.ndarray:
        feeds = {"lr": check_input(lr), "core": core} | _named(pooled)
        return self._run(self._of_tiles(f"stats{len(pooled)}"), "sum", feeds)

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        lr = check_input(lr)
        if not self.stages:
            return self._finish(lr, self._filtered(lr))
        corrected = self._run(self._of_tiles("correction_tile"), "corrected", {"lr": lr} | _named(pooled))
        return self._finish(lr, corrected)

    def __enter__(self) -> BundleEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._correction = self._backbone = self._backprojection = None
        self._tile.clear()

    def _filtered(self, lr: np.ndarray) -> np.ndarray:
        if self.coefficients is None:
            return lr
        return self._run(self._bundle.session("filter"), "corrected", {"lr": lr, "coeff": self.coefficients})

    def _finish(self, lr: np.ndarray, corrected: np.ndarray) -> np.ndarray:
        sr = self._run(self._backbone, "sr", {"lr": corrected})
        for _ in range(self.rounds):
            sr = self._run(self._backprojection, "better", {"sr": sr, "lr": lr})
        return np.clip(sr, 0, 1, out=sr)

    def _of_tiles(self, graph: str):
        if graph not in self._tile:
            self._tile[graph] = self._bundle.session(graph, self.weights)
        return self._tile[graph]

    def _run(self, session, output: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
        return run_session(session, output, feeds, str(self._bundle.folder))


def _named(pooled: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"pooled{stage}": average for stage, average in enumerate(pooled)}
