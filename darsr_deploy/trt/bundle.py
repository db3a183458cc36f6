"""A runtime bundle in TensorRT: the engines of its graphs are opened once, an adapter only binds its weights to them.

The weights are inputs of the engines. They are uploaded once for each adapter and stay on the device, so the next adapter
builds nothing and loads nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..bundle.adapter_inputs import AdapterInputs, bind_adapter, graphs_of, tile_graphs_of
from ..bundle.manifest import Manifest
from ..bundle.numpy_check import TEST_SIZE, corrected, filtered, require_bound, small_picture
from ..engines.base import check_input
from ..errors import DarsrError
from ..files.adapter import Adapter
from ..files.model_spec import Locality
from ..memory import free_memory
from .chain import Chains, Shape, Step, Weights
from .cuda import Device
from .engine_file import EngineFacts
from .library import Library, require_device, require_version
from .shapes import Shapes, input_shape

# Of each graph: the inputs that are no weights of the correction, and the output. ``kernel`` and ``coeff`` are an adapter's.
_PICTURES = {
    "backbone": ({"lr": 3}, "sr"),
    "backprojection": ({"sr": 3, "lr": 3}, "better"),
    "correction": ({"lr": 3}, "corrected"),
    "correction_tile": ({"lr": 3}, "corrected"),
    "filter": ({"lr": 3}, "corrected"),
    "stats0": ({"lr": 3, "core": 1}, "sum"),
    "stats1": ({"lr": 3, "core": 1}, "sum"),
}
_POOLED = {"correction_tile": ("pooled0", "pooled1"), "stats1": ("pooled0",)}
_MOST_COMPARED = 240 * 320  # pixels: of more, the correction in NumPy takes longer than a first picture may


class TrtBundle:
    """Opened engines of a bundle's graphs. Adapters share them, from several threads too: one runs at a time.

    Args:
        folder: the bundle; its manifest is read, the files of its graphs are not.
        library: TensorRT of either family.
        graphs: replay what ran once as a CUDA graph.
        jit_folder: where TensorRT for RTX keeps what it compiled for this GPU.

    Raises:
        DarsrError: no GPU, or no bundle.
    """

    def __init__(
        self, folder: str | Path, library: Library, device: int = 0, graphs: bool = True, jit_folder: Path | None = None
    ) -> None:
        self.folder, self.manifest = Path(folder), Manifest.load(folder)
        self.library, self.lock = library, threading.RLock()
        self.shapes: Shapes | None = None
        self.chains = Chains(library, device, graphs, jit_folder)
        self.provider = f"cuda:{device}"
        self.users: weakref.WeakSet[TrtBundleEngine] = weakref.WeakSet()  # engines that were not closed yet

    @property
    def device(self) -> Device:
        return self.chains.device

    def holds(self, graph: str) -> bool:
        return graph in self.chains.engines

    def open(self, graph: str, data: bytes, facts: EngineFacts) -> None:
        """Load the engine of a graph.

        Raises:
            DarsrError: it is of another graph, version, GPU or bundle, or has other inputs.
        """
        what, onnx = f"engine of {graph}", self.manifest.files[f"{graph}.onnx"]
        if (facts.graph, facts.onnx_sha256) != (graph, onnx):
            raise DarsrError(what, f"was built from another file than {self.folder}'s", "build it again")
        if self.shapes not in (None, facts.shapes):
            raise DarsrError(what, f"is built for {facts.shapes}, the others for {self.shapes}", "build it again")
        require_version(what, facts, self.library)
        require_device(what, facts, self.device)
        with self.lock:
            self.chains.open(graph, data, facts, what, alternates=graph == "backprojection")
            try:
                engine = self.chains.engines[graph]
                engine.require_inputs(self._sizes(graph, facts.shapes), _PICTURES[graph][1])
            except DarsrError:
                self.chains.drop(graph)
                raise
        self.shapes = facts.shapes

    def drop(self, graph: str) -> None:
        with self.lock:
            self.chains.drop(graph)
            if not self.chains.engines:
                self.shapes = None

    def lacks(self, fitted: AdapterInputs) -> list[str]:
        """Graphs that an adapter needs and that are not open. Engines of one size run no tiles, and need none of theirs."""
        tiles = [] if self.shapes is not None and self.shapes.static else tile_graphs_of(fitted)
        return [graph for graph in (*graphs_of(fitted), *tiles) if not self.holds(graph)]

    def engine(self, adapter: Adapter | None, what: str | Path = "adapter", sha256: str = "") -> TrtBundleEngine:
        """An engine for an adapter, whose graphs must have been opened; the backbone alone for None.

        Raises:
            DarsrError: the adapter does not fit the bundle, or what was bound is not what computes.
        """
        return TrtBundleEngine(
            self, bind_adapter(adapter, self.manifest, str(self.folder), str(what)), str(what), sha256
        )

    def close(self) -> None:
        """Its engines are closed too."""
        with self.lock:
            for engine in [*self.users]:
                engine.__exit__()
            self.chains.close()

    def __enter__(self) -> TrtBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sizes(self, graph: str, shapes: Shapes) -> dict[str, list[Shape]]:
        """Inputs that the engine of a graph must have: least, usual and largest shape of each."""
        manifest = self.manifest
        declared: dict[str, Shape] = {name: (-1, c, -1, -1) for name, c in _PICTURES[graph][0].items()}
        channels = manifest.weights["head.bias"][0]
        declared |= dict.fromkeys(_POOLED.get(graph, ()), (-1, channels, 1, 1))
        if graph == "filter":
            declared["coeff"] = (-1, 13, -1, -1)
        elif graph == "backprojection":
            declared["kernel"] = (manifest.kernel_side,) * 2
        elif graph != "backbone":
            declared |= {name: tuple(manifest.weights[name]) for name in _weights_of(graph, manifest)}
        three = (shapes.min, shapes.opt, shapes.max)
        scale = manifest.spec.scale
        return {
            name: [input_shape(name, shape, size, scale, graph) for size in three] for name, shape in declared.items()
        }


class TrtBundleEngine:
    """One adapter in a bundle. See :class:`darsr_deploy.engines.base.Engine` and :class:`darsr_deploy.engines.base.Tileable`.

    Attributes:
        fitted: what the adapter brings.
    """

    def __init__(self, bundle: TrtBundle, fitted: AdapterInputs, what: str, sha256: str) -> None:
        self._bundle, self.fitted, self._what = bundle, fitted, what
        self.name, self.provider = bundle.library.family.name, bundle.provider
        self.device, self.shapes, self.stages = bundle.device, bundle.shapes, fitted.stages
        self.spec = bundle.manifest.spec.extended(form=fitted.kind, adapter_sha256=sha256)
        command = f"darsr export {bundle.folder} --format {self.name} --shapes MIN,OPT,MAX"
        self._hint = f"build engines for other sizes ({command}), or use --engine ort"
        self.locality = replace(fitted.locality, most=min(bundle.shapes.max))
        if self.shapes.static:
            self.locality = Locality(why="its engines take images of one size", hint=self._hint)
        arrays = dict(fitted.weights or {})
        arrays |= {} if fitted.coefficients is None else {"coeff": fitted.coefficients}
        arrays |= {} if fitted.kernel is None else {"kernel": fitted.kernel}
        with bundle.lock, contextlib.ExitStack() as held:
            bundle.device.use()
            chains = bundle.chains
            self._weights = Weights(chains.device, chains.stream, arrays, what) if arrays else None
            held.callback(self._free)
            bundle.users.add(self)
            self._require_bound()
            held.pop_all()

    def run(self, lr: np.ndarray) -> np.ndarray:
        """See :meth:`darsr_deploy.engines.base.Engine.run`. A batch runs image by image.

        Raises:
            DarsrError: a size that the engines were not built for, a failure on the device, or the engine was closed.
        """
        lr = check_input(lr)
        self._check_held(*lr.shape[2:])
        steps = self._corrected(_PATHS[self.fitted.kind])
        return np.concatenate([self._finished("whole", steps, {"lr": image[None]}) for image in lr])

    def check_size(self, lr: np.ndarray) -> None:
        """Any size will do."""

    def sums(self, lr: np.ndarray, core: np.ndarray, pooled: list[np.ndarray]) -> np.ndarray:
        self._check_held(*lr.shape[2:])
        graph, shape = f"stats{len(pooled)}", (1, *self._bundle.manifest.weights["head.bias"], 1, 1)
        inputs = {"lr": "lr", "core": "core"} | {name: name for name in _POOLED.get(graph, ())}
        steps = [Step(graph, inputs, "sum", "sum", self._weights)]
        found = [
            self._run(graph, steps, {"lr": one[None], "core": core} | _named(pooled, i), {"sum": shape}, "sum")
            for i, one in enumerate(check_input(lr))
        ]
        return np.concatenate(found)

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        self._check_held(*lr.shape[2:])
        graph = "correction_tile" if self.stages else _PATHS[self.fitted.kind]
        steps = self._corrected(graph)
        found = [
            self._finished("tile", steps, {"lr": one[None]} | _named(pooled, i))
            for i, one in enumerate(check_input(lr))
        ]
        return np.concatenate(found)

    def free_memory(self) -> int | None:
        """Bytes that a tile may have: on the device, and on the host where that has less."""
        with self._bundle.lock:
            device = self._bundle.chains.free_bytes()
        host = free_memory()
        return device if host is None else min(device, host)

    def inspect(self) -> str:
        """What TensorRT says of every layer of the built engines."""
        return "\n".join(self.inspect_each().values())

    def inspect_each(self) -> dict[str, str]:
        """The same, by graph."""
        return {graph: engine.inspect() for graph, engine in self._bundle.chains.engines.items()}

    def __enter__(self) -> TrtBundleEngine:
        return self

    def __exit__(self, *_: object) -> None:
        with self._bundle.lock:
            if self in self._bundle.users:
                self._bundle.device.use()
                self._bundle.chains.save_compiled()
                self._free()

    def _free(self) -> None:
        self._bundle.users.discard(self)
        if self._weights is not None:
            self._weights.free()
            self._weights = None

    def _check_held(self, height: int, width: int) -> None:
        shapes = self.shapes
        if not shapes.holds(height, width):
            why = f"its engines take sizes {shapes} (height x width), and this image or tile has {height}x{width}"
            large = height >= shapes.min[0] and width >= shapes.min[1]
            tiles = large and self.locality.halo is not None
            raise DarsrError(str(self._bundle.folder), why, "leave out --tile 0" if tiles else self._hint)

    def _corrected(self, graph: str) -> list[Step]:
        """From the buffer ``lr`` to the buffer ``corrected``, by one graph; nothing to do without a correction."""
        if not graph:
            return []
        inputs = {"lr": "lr"} | {name: name for name in _POOLED.get(graph, ())}
        return [Step(graph, inputs, "corrected", "corrected", self._weights)]

    def _finished(self, kind: str, steps: list[Step], feeds: dict[str, np.ndarray]) -> np.ndarray:
        """The backbone and the rounds of back-projection behind a correction."""
        (_, _, height, width), s = feeds["lr"].shape, self.spec.scale
        steps = [*steps, Step("backbone", {"lr": "corrected" if steps else "lr"}, "sr", "sr")]
        result = "sr"
        for _ in range(self.fitted.rounds):
            better = "better" if result == "sr" else "sr"
            steps.append(Step("backprojection", {"sr": result, "lr": "lr"}, "better", better, self._weights))
            result = better
        large = (1, 3, s * height, s * width)
        shapes = {"corrected": (1, 3, height, width), "sr": large, "better": large}
        sr = self._run(kind, steps, feeds, shapes, result)
        return np.clip(sr, 0, 1, out=sr)

    def _run(
        self, kind: str, steps: list[Step], feeds: dict[str, np.ndarray], shapes: dict[str, Shape], result: str
    ) -> np.ndarray:
        shapes = shapes | {name: array.shape for name, array in feeds.items()}
        with self._bundle.lock:
            if self not in self._bundle.users:  # its weights are no longer on the device
                raise DarsrError(str(self._bundle.folder), "this engine of it was closed", "open it again")
            return self._bundle.chains.run((self, kind, feeds["lr"].shape), steps, feeds, shapes, result)

    def _require_bound(self) -> None:
        """The correction of a small picture, whole and as a tile, against the one computed without any runtime."""
        fitted, least = self.fitted, self.shapes.min
        size = TEST_SIZE if self.shapes.holds(*TEST_SIZE) else least
        if fitted.kind == "none" or size[0] * size[1] > _MOST_COMPARED:
            return
        lr = small_picture(*size)
        if fitted.coefficients is not None:
            expected = filtered(lr, fitted.coefficients)
        else:
            expected = corrected(lr, fitted.weights)
        feeds, shapes, precision = {"lr": lr}, {"corrected": lr.shape}, self.spec.precision

        def check(graph: str, feeds: dict[str, np.ndarray]) -> None:
            got = self._run(f"check {graph}", self._corrected(graph), feeds, shapes, "corrected")
            require_bound(got, expected, precision, self._what)

        check(_PATHS[fitted.kind], feeds)
        if self.stages and not self.shapes.static:
            core, pooled = np.ones((1, 1, *lr.shape[2:]), np.float32), []
            for _ in range(self.stages):
                pooled.append(self.sums(lr, core, pooled) / np.float32(core.size))
            check("correction_tile", feeds | _named(pooled, 0))


_PATHS = {"network": "correction", "global": "filter", "none": ""}


def _weights_of(graph: str, manifest: Manifest) -> list[str]:
    """The weights of the correction that a graph reads: a statistics graph ends before the attention it is for."""
    if not graph.startswith("stats"):
        return list(manifest.weights)
    stage = int(graph.removeprefix("stats"))
    read = ["head."] + [f"stages.{before}." for before in range(stage)]
    read += [f"stages.{stage}.{layer}." for layer in ("first", "second")]
    return [name for name in manifest.weights if name.startswith(tuple(read))]


def _named(pooled: list[np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {f"pooled{stage}": average[index : index + 1] for stage, average in enumerate(pooled)}
