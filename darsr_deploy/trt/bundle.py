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

from ..bundle.adapter_inputs import AdapterInputs, bind_adapter
from ..bundle.engine import BundleEngine, named
from ..bundle.graphs import GRAPHS, Step, correction_steps
from ..bundle.manifest import Manifest
from ..bundle.numpy_check import TEST_SIZE, corrected, filtered, require_bound, small_picture
from ..errors import DarsrError
from ..files.adapter import Adapter
from ..files.model_spec import Locality
from .chain import Chain, Shape, Weights
from .cuda import Device
from .engine_file import EngineFacts
from .library import Library, require_device, require_version
from .shapes import Shapes, input_shape

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
        self,
        folder: str | Path,
        library: Library,
        *,
        device: int = 0,
        graphs: bool = True,
        jit_folder: Path | None = None,
    ) -> None:
        self.folder, self.manifest = Path(folder), Manifest.load(folder)
        self.library, self.lock = library, threading.RLock()
        self.shapes: Shapes | None = None
        self.chain = Chain(library, device, graphs, jit_folder)
        self.provider = f"cuda:{device}"
        self.users: weakref.WeakSet[TrtBundleEngine] = weakref.WeakSet()  # engines that were not closed yet

    @property
    def device(self) -> Device:
        """Return the GPU."""
        return self.chain.device

    def holds(self, graph: str) -> bool:
        """Return whether the engine of a graph is open."""
        return graph in self.chain.engines

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
            engine = self.chain.open(graph, data, facts, what, alternates=graph == "backprojection")
            try:
                engine.require_inputs(input_sizes(self.manifest, graph, facts.shapes), GRAPHS[graph].output)
            except DarsrError:
                self.chain.drop(graph)
                raise
        self.shapes = facts.shapes

    def drop(self, graph: str) -> None:
        """Close the engine of a graph."""
        with self.lock:
            self.chain.drop(graph)
            if not self.chain.engines:
                self.shapes = None

    def lacks(self, inputs: AdapterInputs) -> list[str]:
        """Return the graphs that an adapter needs and that are not open. Engines of one size run no tiles."""
        tiles = [] if self.shapes is not None and self.shapes.static else inputs.tile_graphs
        return [graph for graph in (*inputs.graphs, *tiles) if not self.holds(graph)]

    def engine(self, adapter: Adapter | None, what: str | Path = "adapter", sha256: str = "") -> TrtBundleEngine:
        """Return an engine for an adapter, whose graphs must have been opened; the backbone alone for None.

        Raises:
            DarsrError: the adapter does not fit the bundle, or what was bound is not what computes.
        """
        return TrtBundleEngine(
            self, bind_adapter(adapter, self.manifest, str(self.folder), str(what)), str(what), sha256
        )

    def close(self) -> None:
        """Give everything back; its engines cannot be used any more."""
        with self.lock:
            for engine in [*self.users]:
                engine.__exit__()
            self.chain.close()

    def __enter__(self) -> TrtBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TrtBundleEngine(BundleEngine):
    """One adapter in a bundle in TensorRT: its arrays are inputs that stay on the device. A batch runs image by image."""

    def __init__(self, bundle: TrtBundle, inputs: AdapterInputs, what: str, sha256: str) -> None:
        super().__init__(bundle.manifest, inputs, sha256)
        self._bundle, self._what = bundle, what
        self.name, self.provider = bundle.library.family.name, bundle.provider
        assert bundle.shapes is not None  # engines of its graphs are open
        self.device, self.shapes = bundle.device, bundle.shapes
        command = f"darsr export {bundle.folder} --format {self.name} --shapes MIN,OPT,MAX"
        self._hint = f"build engines for other sizes ({command}), or use --engine ort"
        self.locality = replace(inputs.locality, most=min(self.shapes.max))
        if self.shapes.static:
            self.locality = Locality(why="its engines take images of one size", hint=self._hint)
        with bundle.lock, contextlib.ExitStack() as held:
            bundle.device.use()
            chain = bundle.chain
            self._weights = Weights(chain.device, chain.stream, inputs.arrays, what) if inputs.arrays else None
            held.callback(self._free)
            bundle.users.add(self)
            self._require_bound()
            held.pop_all()

    def free_memory(self) -> int:
        """Return the bytes that a tile may have: on the device, and on the host where that has less."""
        with self._bundle.lock:
            return self._bundle.chain.free_bytes()

    def inspect(self) -> str:
        """Return what TensorRT says of every layer of the built engines."""
        return "\n".join(self.inspect_each().values())

    def inspect_each(self) -> dict[str, str]:
        """Return the same by graph."""
        return {graph: engine.inspect() for graph, engine in self._bundle.chain.engines.items()}

    def __enter__(self) -> TrtBundleEngine:
        return self

    def __exit__(self, *_: object) -> None:
        with self._bundle.lock:
            if self in self._bundle.users:
                self._bundle.device.use()
                self._bundle.chain.save_compiled()
                self._free()

    def _free(self) -> None:
        self._bundle.users.discard(self)
        if self._weights is not None:
            self._weights.free()
            self._weights = None

    def _execute(self, steps: list[Step], feeds: dict[str, np.ndarray]) -> np.ndarray:
        (count, _, height, width), shapes, s = feeds["lr"].shape, self.shapes, self.spec.scale
        if not shapes.holds(height, width):
            why = f"its engines take sizes {shapes} (height x width), and this image or tile has {height}x{width}"
            large = height >= shapes.min[0] and width >= shapes.min[1]
            tiles = large and self.locality.halo is not None
            raise DarsrError(str(self._bundle.folder), why, "leave out --tile 0" if tiles else self._hint)
        key = (self, *(step.graph for step in steps), height, width)
        buffers = {"corrected": (1, 3, height, width), "sum": (1, *self._bundle.manifest.weights["head.bias"], 1, 1)}
        buffers |= dict.fromkeys(("sr", "better"), (1, 3, s * height, s * width))
        found = []
        with self._bundle.lock:
            if self not in self._bundle.users:  # its weights are no longer on the device
                raise DarsrError(str(self._bundle.folder), "this engine of it was closed", "open it again")
            for i in range(count):
                one = {name: array[i : i + 1] if len(array) == count else array for name, array in feeds.items()}
                found.append(self._bundle.chain.run(key, steps, one, buffers, self._weights))
        return found[0] if count == 1 else np.concatenate(found)

    def _require_bound(self) -> None:
        """Compare the correction of a small picture, whole and as a tile, with the one computed without any runtime."""
        kind, arrays = self.inputs.kind, self.inputs.arrays
        size = TEST_SIZE if self.shapes.holds(*TEST_SIZE) else self.shapes.min
        if kind == "none" or size[0] * size[1] > _MOST_COMPARED:
            return
        lr = small_picture(*size)
        expected = corrected(lr, arrays) if kind == "network" else filtered(lr, arrays["coeff"])
        pooled: list[np.ndarray] = []

        def check(tile: bool) -> None:
            got = self._execute(correction_steps(kind, tile), {"lr": lr} | named(pooled))
            require_bound(got, expected, self.spec.precision, self._what)

        check(tile=False)
        if self.stages and not self.shapes.static:
            core = np.ones((1, 1, *lr.shape[2:]), np.float32)
            for _ in range(self.stages):
                pooled.append(self.sums(lr, core, pooled) / np.float32(core.size))
            check(tile=True)


def input_sizes(manifest: Manifest, graph: str, shapes: Shapes) -> dict[str, list[Shape]]:
    """Return the smallest, optimal and largest shape of every input that the engine of a graph must have."""
    channels = manifest.weights["head.bias"][0]
    declared: dict[str, Shape] = {name: (-1, c, -1, -1) for name, c in GRAPHS[graph].pictures.items()}
    declared |= {f"pooled{stage}": (-1, channels, 1, 1) for stage in range(GRAPHS[graph].pooled)}
    declared |= manifest.bound_shapes(graph)
    three, scale = (shapes.min, shapes.opt, shapes.max), manifest.spec.scale
    return {name: [input_shape(name, shape, size, scale, graph) for size in three] for name, shape in declared.items()}
