"""TensorRT and TensorRT for RTX: an engine file on a GPU, without PyTorch."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from .cuda_driver import Device, DeviceMemory, Event, Graph, HostMemory, Stream
from .engine import check_input
from .engine_file import EngineFacts, read_engine
from .errors import DarsrError
from .jit_cache import SUFFIX, JitCache
from .ort_engine import read_coefficients
from .spec import Locality
from .trt_library import FAMILIES, Library, import_library, make_logger
from .trust import require_trust

_FLOAT_BYTES = 4
_WHOLE = Locality(
    why="a TensorRT engine takes whole images", way_out="build it for larger --shapes, or use --engine ort"
)


class TrtEngine:
    """An engine file. See :class:`.engine.Engine`.

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

    locality = _WHOLE

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
        if built is None and not trust:
            require_trust(Path(model), self.facts.sha256)
        self.spec, self._model, self._graphs = self.facts.spec, str(model), graphs
        self.name = self.facts.family
        library = import_library(FAMILIES[self.facts.family])
        require_version(self._model, self.facts, library)
        with contextlib.ExitStack() as held:  # what was opened is closed again if anything below fails
            self.device = Device(device)
            held.callback(self.device.close)
            require_device(self._model, self.facts, self.device)
            self.provider = f"cuda:{device}"
            jit = jit_folder and jit_folder / f"{self.facts.sha256[:32]}{SUFFIX}"
            self._jit = JitCache(jit) if jit is not None and self.name == "trt-rtx" else None
            self._load(library, data, held)
            inputs = {"lr": (3,)} | ({"coeff": (13,)} if self.spec.form == "filters" else {})
            self._check_contract(library, inputs)
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
        """See :meth:`.engine.Engine.run`. A batch runs image by image.

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
                "build one with --shape or --shapes that holds it, or use --engine ort",
            )
        if self._coefficients is not None and len(lr) != 1:
            raise DarsrError(self._model, f"holds the filters of one image, and this is {len(lr)}", "use form network")
        self._prepare((1, 3, height, width))
        return np.concatenate([self._one(image[None]) for image in lr])

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
        inspector = self._engine.create_engine_inspector()
        return inspector.get_engine_information(self._module.LayerInformationFormat.JSON)

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self.device.use()
            if self._jit is not None:
                self._jit.save()
            self._held.close()
            self._held = None

    def _load(self, library: Library, data: bytes, held: contextlib.ExitStack) -> None:
        """Runtime, engine and context; freed in the opposite order, before the device is."""
        self._context = self._engine = self._runtime = None

        def release() -> None:
            self._context = None
            self._engine = None
            self._runtime = None

        held.callback(release)
        self._module, logger = library.module, make_logger(library.module)
        self._logger, self._runtime = logger, self._module.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise DarsrError(
                self._model,
                f"{library.family.title} {library.version} cannot load it ({logger.why()})",
                "build it again",
            )
        self._context = self._create_context(library)
        if self._context is None:
            raise DarsrError(self._model, f"no execution context ({logger.why()})", "free some GPU memory")

    def _create_context(self, library: Library):
        """The memory of activations is ours, so that it is as large as the size that runs and not as the largest."""
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        if library.family.name == "trt":
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if self._graphs:  # it compiles for a size in the background, so it alone knows when to capture
            config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._graphs = False
        if self._jit is not None:
            self._jit.attach(config)
        return self._engine.create_execution_context(config)

    def _check_contract(self, library: Library, inputs: dict[str, tuple[int, ...]]) -> None:
        """Names, directions, types and channels that the engine has, whatever its sidecar says."""
        engine, module = self._engine, library.module
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if names != {*inputs, "sr"}:
            raise DarsrError(self._model, f"has inputs and outputs {sorted(names)}", "build the engine again")
        for name in sorted(names):
            mode = module.TensorIOMode.OUTPUT if name == "sr" else module.TensorIOMode.INPUT
            if engine.get_tensor_mode(name) != mode or engine.get_tensor_dtype(name) != module.DataType.FLOAT:
                raise DarsrError(self._model, f"{name} is not a float32 {mode.name.lower()}", "build the engine again")
        for name, channels in inputs.items():
            # a static input has no profile of its own: its shape is the engine's
            static = tuple(engine.get_tensor_shape(name))
            sizes = [static] * 3 if -1 not in static else [tuple(s) for s in engine.get_tensor_profile_shape(name, 0)]
            shapes = self.facts.shapes
            if sizes != [(1, *channels, *size) for size in (shapes.least, shapes.usual, shapes.largest)]:
                raise DarsrError(
                    self._model, f"is built for {name} {sizes}, not for {shapes}", "build the engine again"
                )

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Shapes, addresses and scratch memory for a size, if it is another one than before."""
        if shape == self._shape:
            return
        self._forget_graph()
        self._shape, self._ran = (), False
        context, (_, _, height, width) = self._context, shape
        self._give("lr", shape)
        if self._coefficients is not None:
            self._give("coeff", self._coefficients.shape)
        scale = self.spec.scale
        expected = (1, 3, scale * height, scale * width)
        if (missing := context.infer_shapes()) or tuple(context.get_tensor_shape("sr")) != expected:
            raise DarsrError(self._model, f"gives no {expected} ({missing or self._logger.why()})", "build it again")
        self._reserve("sr", expected)
        scratch = self._on_device["scratch"]
        if size := context.update_device_memory_size_for_shapes():
            scratch.reserve(size)
            context.set_device_memory(scratch.address, scratch.size)
        self._shape = shape

    def _give(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise DarsrError(self._model, f"does not take {name} {shape} ({self._logger.why()})", "build it again")
        self._reserve(name, shape)

    def _reserve(self, name: str, shape: tuple[int, ...]) -> None:
        size = _FLOAT_BYTES * int(np.prod(shape))
        self._on_device[name].reserve(size)
        self._on_host[name].reserve(size)
        if not self._context.set_tensor_address(name, self._on_device[name].address):
            raise DarsrError(
                self._model, f"does not take the memory of {name} ({self._logger.why()})", "build it again"
            )

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
            self._enqueue()
        mark()
        shape = (1, 3, *(self.spec.scale * side for side in image.shape[2:]))
        self._stream.download(self._on_host["sr"], self._on_device["sr"], _FLOAT_BYTES * int(np.prod(shape)))
        mark()
        self._stream.synchronize()
        self._ran = True
        return self._on_host["sr"].array(shape).copy()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise DarsrError(self._model, f"TensorRT cannot run it ({self._logger.why()})", "use --engine ort")

    def _capture(self) -> None:
        """Record one enqueue as a graph. Only after a run with these shapes: TensorRT defers work until then."""
        self._stream.begin_capture()
        try:
            try:
                self._enqueue()
            finally:  # a stream left capturing could not be used any more
                self._graph = self._stream.end_capture()
        except DarsrError:  # not every layer can be captured; the same work is then enqueued, which only costs time
            self._graphs, self._graph = False, None

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = None


def require_version(model: str, facts: EngineFacts, library: Library) -> None:
    """An engine loads in the version that built it.

    Raises:
        DarsrError: another version is installed.
    """
    if facts.tensorrt != library.version:
        raise DarsrError(
            model,
            f"was built by {library.family.title} {facts.tensorrt}, and {library.version} is installed",
            "build it again with darsr export, or install that version",
        )


def require_device(model: str, facts: EngineFacts, device: Device) -> None:
    """An enterprise engine runs on the GPU model it was built on; one for RTX on the targets it was built for.

    Raises:
        DarsrError: another GPU.
    """
    if facts.family == "trt":
        if (facts.gpu, facts.target) != (device.name, device.target):
            raise DarsrError(
                model,
                f"was built on {facts.gpu} ({facts.target}), and this is {device.name} ({device.target})",
                "build it here with darsr export --format trt",
            )
    elif facts.targets and device.target not in facts.targets:
        raise DarsrError(
            model,
            f"was built for {', '.join(facts.targets)}, and this is {device.name} ({device.target})",
            f"build it with --target {device.target}"
            if device.target != "sm_87"
            else "use --format trt on this device",
        )
