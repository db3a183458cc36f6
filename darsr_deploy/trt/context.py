"""An engine of TensorRT that was loaded: runtime, engine and execution context, whatever its inputs and outputs are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ..errors import DarsrError
from .cache import JIT_SUFFIX, JitCache
from .cuda import DeviceMemory, Stream
from .engine_file import EngineFacts
from .library import Library, make_logger


class TrtContext:
    """Loads an engine and hands out its context. Memory is the caller's: pictures, weights, and that of activations.

    The context's own memory of activations is as large as the size that runs asks for, and several contexts that run one
    after the other may share it.

    Args:
        data: what TensorRT serialised, for this version and device (see :mod:`.engine`, which checks both).
        what: the engine's name in errors.
        graphs: TensorRT for RTX captures CUDA graphs itself: it compiles for a size in the background, so it alone knows when.
        jit_folder: where TensorRT for RTX keeps what it compiled; None: nowhere.

    Attributes:
        inputs, outputs: their names.

    Raises:
        DarsrError: it cannot be loaded, or has no execution context.
    """

    def __init__(
        self,
        library: Library,
        data: bytes,
        facts: EngineFacts,
        what: str,
        *,
        graphs: bool = True,
        jit_folder: Path | None = None,
    ) -> None:
        self.facts, self._what, self.module = facts, what, library.module
        jit = jit_folder and jit_folder / f"{facts.sha256[:32]}{JIT_SUFFIX}"
        self._jit = JitCache(jit) if jit is not None and library.family.name == "trt-rtx" else None
        self.logger = make_logger(self.module)
        self._runtime: Any = self.module.Runtime(self.logger)
        self._context: Any = None
        self.engine: Any = self._runtime.deserialize_cuda_engine(data)
        with contextlib.ExitStack() as held:
            held.callback(self.close)
            if self.engine is None:
                why = f"{library.family.title} {library.version} cannot load it ({self.logger.why()})"
                raise DarsrError(what, why, "build it again")
            self._context = self._created(library, graphs)
            if self._context is None:
                raise DarsrError(what, f"no execution context ({self.logger.why()})", "free some GPU memory")
            held.pop_all()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        directions = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if directions[name] == self.module.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]

    def sizes(self, name: str) -> list[tuple[int, ...]]:
        """Return the smallest, optimal and largest shape of an input; a static one has no profile of its own."""
        shape = tuple(self.engine.get_tensor_shape(name))
        if -1 not in shape:
            return [shape] * 3
        return [tuple(size) for size in self.engine.get_tensor_profile_shape(name, 0)]

    def require_inputs(self, expected: dict[str, list[tuple[int, ...]]], output: str) -> None:
        """Check names, directions, types and sizes of the engine itself, whatever its sidecar says.

        Raises:
            DarsrError: others than expected.
        """
        hint = "build the engine again"
        if {*self.inputs, *self.outputs} != {*expected, output}:
            raise DarsrError(self._what, f"has inputs and outputs {sorted([*self.inputs, *self.outputs])}", hint)
        for name in sorted({*expected, output}):
            mode = self.module.TensorIOMode.OUTPUT if name == output else self.module.TensorIOMode.INPUT
            own = self.engine.get_tensor_mode(name), self.engine.get_tensor_dtype(name)
            if own != (mode, self.module.DataType.FLOAT):
                raise DarsrError(self._what, f"{name} is not a float32 {mode.name.lower()}", hint)
        for name, sizes in expected.items():
            if self.sizes(name) != sizes:
                raise DarsrError(
                    self._what, f"is built for {name} {self.sizes(name)}, not for {self.facts.shapes}", hint
                )

    def set_shapes(self, inputs: dict[str, tuple[int, ...]], output: str, expected: tuple[int, ...]) -> None:
        """Set the shapes of all inputs.

        Raises:
            DarsrError: one that it does not take, or another shape of the output than expected.
        """
        for name, shape in inputs.items():
            if not self._context.set_input_shape(name, shape):
                raise DarsrError(self._what, f"does not take {name} {shape} ({self.logger.why()})", "build it again")
        if (missing := self._context.infer_shapes()) or tuple(self._context.get_tensor_shape(output)) != expected:
            raise DarsrError(self._what, f"gives no {expected} ({missing or self.logger.why()})", "build it again")

    def set_address(self, name: str, address: int) -> None:
        """Set where an input or output lies on the device."""
        if not self._context.set_tensor_address(name, address):
            raise DarsrError(self._what, f"does not take the memory of {name} ({self.logger.why()})", "build it again")

    def scratch_bytes(self) -> int:
        """Return the bytes of the activations with the shapes that were set."""
        return self._context.update_device_memory_size_for_shapes()

    def set_scratch(self, memory: DeviceMemory) -> None:
        """Set the memory of the activations."""
        if memory.size:
            self._context.set_device_memory(memory.address, memory.size)

    def enqueue(self, stream: Stream) -> None:
        """Enqueue the engine's work."""
        if not self._context.execute_async_v3(stream.handle):
            raise DarsrError(self._what, f"TensorRT cannot run it ({self.logger.why()})", "use --engine ort")

    def inspect(self) -> str:
        """Return what TensorRT says of every layer of the built engine, as JSON."""
        inspector = self.engine.create_engine_inspector()
        return inspector.get_engine_information(self.module.LayerInformationFormat.JSON)

    def save_compiled(self) -> None:
        """Write what TensorRT for RTX compiled since."""
        if self._jit is not None:
            self._jit.save()

    def close(self) -> None:
        """Free everything in the opposite order of its making; call it before the device is closed."""
        self._context = None
        self.engine = None
        self._runtime = None

    def _created(self, library: Library, graphs: bool) -> Any:
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if library.family.name == "trt":
            return self.engine.create_execution_context(strategy)
        config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if graphs:
            config.cuda_graph_strategy = self.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._jit is not None:
            self._jit.attach(config)
        return self.engine.create_execution_context(config)
