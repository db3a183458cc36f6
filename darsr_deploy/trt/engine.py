"""TensorRT and TensorRT for RTX: an engine file on a GPU, without PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.base import check_input
from ..errors import DarsrError
from ..files.coefficients import read_coefficients
from ..files.model_spec import Locality
from ..files.onnx_bytes import read_spec
from ..memory import free_memory
from .cache import EngineCache, engine_key
from .context import TrtContext
from .cuda import Device, DeviceMemory, Event, Graph, HostMemory, Stream
from .engine_file import EngineFacts, read_engine
from .library import FAMILIES, Library, import_library, require_device, require_gpu, require_version
from .shapes import DEFAULT_SHAPES, fixed_shapes
from .trust import require_trust

if TYPE_CHECKING:
    from .open_bundle import Builder

_FLOAT_BYTES = 4
_HINT = "give the adapter or a bundle (darsr export --split) in fp32 or fp16, which go in tiles: --precision fp16"


class TrtEngine:
    """An engine file. See :class:`darsr_deploy.engines.base.Engine` and :class:`darsr_deploy.engines.base.Tileable`.

    Not to be shared by threads at the same moment; another thread may use it afterwards.

    Args:
        model: an ``.engine`` file written by ``darsr export``, with its sidecar.
        trust: load it even if it was not built on this machine. An engine is code.
        device: index of the GPU.
        graphs: replay a captured CUDA graph from the second image of one size on.
        built: bytes and facts of an engine that was built a moment ago, instead of the file; it need not be trusted.
        coefficients: of form ``filters``, 1 x 13 x H x W, instead of the file beside it.
        jit_folder: where TensorRT for RTX keeps what it compiled for this GPU; by default it compiles at every start.

    Raises:
        DarsrError: no GPU or library, an engine of another version, GPU or contract, a damaged or untrusted file.
    """

    stages = 0

    def __init__(
        self,
        model: str | Path,
        trust: bool = False,
        device: int = 0,
        graphs: bool = True,
        built: tuple[bytes, EngineFacts] | None = None,
        coefficients: np.ndarray | None = None,
        jit_folder: Path | None = None,
    ) -> None:
        data, self.facts = built or read_engine(model)
        if self.facts.graph:
            why = f"is the engine of one graph ({self.facts.graph}) of a runtime bundle"
            raise DarsrError(str(model), why, "give the bundle with --model, and --engine trt")
        if built is None and not trust:
            require_trust(Path(model), self.facts.sha256)
        self.spec, self._model = self.facts.spec, str(model)
        self.name, self.locality = self.facts.family, _locality(self.facts)
        library = import_library(FAMILIES[self.facts.family])
        require_version(self._model, self.facts, library)
        with contextlib.ExitStack() as held:  # what was opened is closed again if anything below fails
            self.device = Device(device)
            held.callback(self.device.close)
            require_device(self._model, self.facts, self.device)
            self.provider = f"cuda:{device}"
            self._core = TrtContext(library, data, self.facts, self._model, graphs, jit_folder)
            held.callback(self._core.close)
            self._graphs = self._core.captures
            channels = {"lr": 3} | ({"coeff": 13} if self.spec.form == "filters" else {})
            sides, inputs = self.facts.shapes, list(channels)
            sizes = (sides.min, sides.opt, sides.max)
            self._core.require_inputs({name: [(1, c, *size) for size in sizes] for name, c in channels.items()}, "sr")
            self._coefficients = coefficients
            if "coeff" in inputs and coefficients is None:
                self._coefficients = read_coefficients(model, self.spec)
            self._stream = Stream(self.device)
            held.callback(self._stream.close)
            self._on_device = {name: DeviceMemory(self.device) for name in (*inputs, "sr", "scratch")}
            self._on_host = {name: HostMemory(self.device) for name in (*inputs, "sr")}
            for memory in (*self._on_device.values(), *self._on_host.values()):
                held.callback(memory.free)
            self._shape: tuple[int, ...] = ()
            self._graph: Graph | None = None
            self._ran = False  # with this shape
            held.callback(self._forget_graph)
            self._held = held.pop_all()

    def run(self, lr: np.ndarray) -> np.ndarray:
        """See :meth:`darsr_deploy.engines.base.Engine.run`. A batch runs image by image.

        Raises:
            DarsrError: a size that the engine was not built for, or a failure on the device.
        """
        lr = check_input(lr)
        self.device.use()
        height, width = lr.shape[2:]
        if not self.facts.shapes.holds(height, width):
            raise DarsrError(
                self._model,
                f"is built for sizes {self.facts.shapes} (height x width), and this image has {height}x{width}",
                f"build one with --shape or --shapes that holds it, or {_HINT}",
            )
        if self._coefficients is not None and len(lr) != 1:
            raise DarsrError(self._model, f"holds the filters of one image, and this is {len(lr)}", "use form network")
        self._prepare((1, 3, height, width))
        return np.concatenate([self._one(image[None]) for image in lr])

    def check_size(self, lr: np.ndarray) -> None:
        """Any size will do in tiles."""

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        return self.run(lr)

    def free_memory(self) -> int | None:
        """Bytes that a tile may have: on the device, and on the host where that has less."""
        self.device.use()
        device, host = self.device.memory()[0] + self.memory_bytes(), free_memory()
        return device if host is None else min(device, host)

    def time(self, lr: np.ndarray) -> dict[str, float]:
        """Milliseconds on the device's own clock for one image: ``upload``, ``compute``, ``download``."""
        marks: list[Event] = []
        self.run(lr[:1])  # whatever a first run does is done
        try:
            self._one(check_input(lr[:1]), marks)
            parts = zip(("upload", "compute", "download"), marks, marks[1:])
            return {name: after.milliseconds_since(before) for name, before, after in parts}
        finally:
            for mark in marks:
                mark.close()

    def memory_bytes(self) -> int:
        """What the engine holds on the device for the size that ran last, weights and code not counted."""
        return sum(memory.size for memory in self._on_device.values())

    def inspect(self) -> str:
        """What TensorRT says of every layer of the built engine, as JSON."""
        return self._core.inspect()

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self.device.use()
            self._core.save_compiled()
            self._held.close()
            self._held = None

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Shapes, addresses and scratch memory for a size, if it is another one than before."""
        if shape == self._shape:
            return
        self._forget_graph()
        self._shape, self._ran = (), False
        inputs = {"lr": shape} | ({} if self._coefficients is None else {"coeff": self._coefficients.shape})
        expected = (1, 3, *(self.spec.scale * side for side in shape[2:]))
        self._core.set_shapes(inputs, "sr", expected)
        for name, its in {**inputs, "sr": expected}.items():
            size = _FLOAT_BYTES * int(np.prod(its))
            self._on_device[name].reserve(size)
            self._on_host[name].reserve(size)
            self._core.set_address(name, self._on_device[name].address)
        self._on_device["scratch"].reserve(self._core.scratch_bytes())
        self._core.set_scratch(self._on_device["scratch"])
        self._shape = shape

    def _one(self, image: np.ndarray, marks: list[Event] | None = None) -> np.ndarray:
        """Upload, compute, download, wait."""

        def mark() -> None:
            if marks is not None:
                marks.append(Event(self.device))
                marks[-1].record(self._stream)

        feeds = {"lr": image} | ({} if self._coefficients is None else {"coeff": self._coefficients})
        if self._graphs and self._ran and self._graph is None:
            self._capture()
        mark()
        for name, array in feeds.items():
            self._on_host[name].array(array.shape)[...] = array
            self._stream.upload(self._on_device[name], self._on_host[name], array.nbytes)
        mark()
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._core.enqueue(self._stream)
        mark()
        shape = (1, 3, *(self.spec.scale * side for side in image.shape[2:]))
        self._stream.download(self._on_host["sr"], self._on_device["sr"], _FLOAT_BYTES * int(np.prod(shape)))
        mark()
        self._stream.synchronize()
        self._ran = True
        return self._on_host["sr"].array(shape).copy()

    def _capture(self) -> None:
        """Record one enqueue as a graph. Only after a run with these shapes: TensorRT defers work until then."""
        self._stream.begin_capture()
        try:
            try:
                self._core.enqueue(self._stream)
            finally:  # a stream left capturing could not be used any more
                self._graph = self._stream.end_capture()
        except DarsrError:  # not every layer can be captured; the same work is then enqueued, which only costs time
            self._graphs, self._graph = False, None

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = None


def open_model(
    onnx: Path, library: Library, cache: EngineCache, say: Callable[[str], None], builder: Builder | None = None
) -> TrtEngine:
    """Open the engine of a model file for the GPU at hand: from the cache, else built.

    An engine that cannot be loaded (damaged, another driver) is built again, once.

    Raises:
        DarsrError: no GPU, no engine in the cache and no builder, or an engine that cannot be built or loaded.
    """
    gpu, target = require_gpu(library)
    data, spec = read_spec(onnx)
    shapes = fixed_shapes(spec) or DEFAULT_SHAPES
    key = engine_key(data, spec.precision, library, shapes, gpu, target)
    with cache.locked(key) as path:
        if path.is_file():
            try:
                engine = TrtEngine(path, jit_folder=cache.folder)
                cache.used(key)
                return engine
            except DarsrError as error:
                say(f"the engine in the cache cannot be used ({error.args[1]}): building it again")
                cache.remove(key)
        family = library.family
        if builder is None:
            command = f"darsr export {onnx} --format {family.name}"
            raise DarsrError(str(onnx), f"is no engine, and there is none for {gpu} yet", f"build it: {command}")
        say(f"building the {family.title} engine for {gpu}, {shapes} (once; it is kept in the cache)")
        builder.build_model(onnx, path, library, shapes=shapes, key=key)
        cache.shrink(keep=key)
        return TrtEngine(path, jit_folder=cache.folder)


def _locality(facts: EngineFacts) -> Locality:
    """What tiles need. Filters belong to their pixels, and an engine of one size takes images of that size."""
    own, most = facts.spec.locality(), min(facts.shapes.max)
    if facts.spec.form == "filters" or facts.shapes.static:
        return Locality(why="an engine of one size takes whole images", hint=_HINT)
    return replace(own, most=most, why=own.why or "this model takes whole images", hint=_HINT)
