"""The runtime bundle: a folder of ONNX graphs that runs any adapter of its architecture, with no export in between.

``bundle.json`` lists the files with their checksums, the contract and what tiles need. The backbone is opened once for all
adapters; an adapter brings the weights of the correction, which become constants of its graphs (:mod:`.bind`), and the kernel
of back-projection. See :mod:`export.pieces` for the graphs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .adapter import Adapter
from .atomic import write_text
from .bind import bind
from .engine import check_input
from .errors import DarsrError
from .fitted import fit
from .ort_engine import open_session, run_session
from .spec import ModelSpec

MANIFEST = "bundle.json"
OWN_ADAPTER = "adapter.darsr"  # the one that the bundle was exported from
GRAPHS = ("backbone", "backprojection", "correction", "correction_tile", "filter", "stats0", "stats1")
VERSION = 1
_WAY_OUT = "make it again with darsr export --split"


@dataclass(frozen=True)
class Manifest:
    """What ``bundle.json`` says.

    Attributes:
        spec: the contract of the whole, and its measured parity. Form ``network``: adapters of the others run as well.
        files: sha256 by file name.
        weights: shapes of the correction's weights, by the names of a DARM of 13 taps.
        kernel_side: largest side of a kernel of back-projection.
        halos: LR pixels around a tile, by graph; None where it takes whole images alone. That of the backbone should not:
            ``whole_because`` then says why.
        alignment: tiles begin at multiples of it.
        bytes_per_pixel: values that are alive at a time, per LR pixel, by graph.
    """

    spec: ModelSpec
    files: Mapping[str, str]
    weights: Mapping[str, list[int]]
    kernel_side: int
    halos: Mapping[str, int | None]
    alignment: int
    bytes_per_pixel: Mapping[str, int]
    whole_because: str = ""
    kind: str = "bundle"
    version: int = VERSION

    def save(self, folder: Path) -> None:
        write_text(folder / MANIFEST, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def read(self, folder: Path, name: str) -> bytes:
        """A file of the bundle.

        Raises:
            DarsrError: it is missing, or is not the one that the manifest lists.
        """
        path = folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DarsrError(str(path), f"cannot be read ({error.strerror})", _WAY_OUT) from error
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise DarsrError(str(path), f"is not the file that {MANIFEST} lists: its checksum differs", _WAY_OUT)
        return data

    def own_adapter(self, folder: Path) -> Path | None:
        """The adapter that the bundle was exported from, if it holds it."""
        if OWN_ADAPTER not in self.files:
            return None
        self.read(folder, OWN_ADAPTER)
        return folder / OWN_ADAPTER

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read and check the manifest; the files themselves are checked as they are read.

        Raises:
            DarsrError: there is none, or a field is unknown, missing or of a wrong kind; the line names it.
        """
        path = Path(folder) / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DarsrError(str(folder), f"is no bundle: {MANIFEST} is missing there", _WAY_OUT) from error
        except ValueError as error:
            raise DarsrError(str(path), "is damaged", _WAY_OUT) from error
        if not isinstance(values, dict) or values.get("kind") != "bundle":
            raise DarsrError(str(path), "does not describe a bundle", _WAY_OUT)
        if values.get("version") != VERSION:
            why = f"has format version {values.get('version')}, this program reads {VERSION}"
            raise DarsrError(str(path), why, _WAY_OUT)
        for name, kind in _FIELDS.items():
            if not isinstance(values.get(name), kind):
                raise DarsrError(str(path), f"field {name} is missing or not as expected", _WAY_OUT)
        if unknown := sorted(values.keys() - {*_FIELDS, "kind", "version"}):
            raise DarsrError(str(path), f"field {unknown[0]} is not known", _WAY_OUT)
        values["spec"] = ModelSpec.from_json(json.dumps(values["spec"]), str(path))
        names = {f"{graph}.onnx" for graph in GRAPHS}
        if not names <= values["files"].keys() <= {*names, OWN_ADAPTER}:
            raise DarsrError(str(path), "field files does not list a bundle's files", _WAY_OUT)
        for name in ("halos", "bytes_per_pixel"):
            if not values[name].keys() == set(GRAPHS) or not all(_is_count(v, name) for v in values[name].values()):
                raise DarsrError(str(path), f"field {name} is missing or not as expected", _WAY_OUT)
        return cls(**values)


_FIELDS = {
    "spec": dict,
    "files": dict,
    "weights": dict,
    "kernel_side": int,
    "halos": dict,
    "alignment": int,
    "bytes_per_pixel": dict,
    "whole_because": str,
}


def _is_count(value: object, name: str) -> bool:
    return (isinstance(value, int) and value >= 0) or (value is None and name == "halos")


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a folder, and so can be no other kind of model."""
    return Path(path).is_dir()


def open_bundle(folder: str | Path, provider: str = "cpu") -> Bundle:
    """A bundle, kept open for the next adapter of this process; opened anew where its manifest has changed.

    Raises:
        DarsrError: as :class:`Bundle`.
    """
    path = Path(folder) / MANIFEST
    stamp = path.read_bytes() if path.is_file() else b""
    return _kept(str(folder), os.getcwd(), provider, stamp)


@functools.lru_cache(maxsize=1)
def _kept(folder: str, base: str, provider: str, stamp: bytes) -> Bundle:
    return Bundle(folder, provider)


class Bundle:
    """An opened bundle. Adapters share its backbone.

    Args:
        folder: written by ``darsr export --split``.
        provider: ``cpu`` or ``cuda``, as :func:`.ort_engine.open_session`.
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
    """One adapter in a bundle. See :class:`.engine.Engine` and :class:`.engine.Tileable`.

    Attributes:
        weights: of the correction network, float32; None without one.
        coefficients: of one filter for all pixels, 1 x 13 x 1 x 1; None without one.
        kernel, rounds: of back-projection; None and 0 without.
    """

    name = "ort"

    def __init__(self, bundle: Bundle, adapter: Adapter | None, what: str, sha256: str) -> None:
        self._bundle, fitted = bundle, fit(adapter, bundle.manifest, str(bundle.folder), what)
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
