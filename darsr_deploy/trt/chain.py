"""Several engines of TensorRT run one after the other on one stream; what lies between them stays on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np

from ..bundle.graphs import Step
from ..errors import DarsrError, OutOfMemory
from ..memory import free_memory
from .context import TrtContext
from .cuda import Device, DeviceMemory, Event, Graph, HostMemory, Stream
from .engine_file import EngineFacts
from .library import Library

_FLOAT_BYTES, _ALIGNMENT = 4, 256
Shape = tuple[int, ...]


class Weights:
    """Inputs that stay as they are: uploaded once, as one piece of device memory, and read back to compare.

    Attributes:
        shapes, addresses: by the name of the input.

    Raises:
        OutOfMemory: no room on the device.
        DarsrError: what lies on the device is not what was uploaded.
    """

    def __init__(self, device: Device, stream: Stream, arrays: Mapping[str, np.ndarray], what: str) -> None:
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        offsets, size = {}, 0
        for name, array in arrays.items():
            offsets[name] = size
            size += -(-array.size * _FLOAT_BYTES // _ALIGNMENT) * _ALIGNMENT
        self._memory, host = DeviceMemory(device), HostMemory(device)
        with contextlib.ExitStack() as always, contextlib.ExitStack() as on_failure:
            always.callback(host.free)
            on_failure.callback(self.free)
            self._memory.reserve(size)
            host.reserve(size)
            packed = np.zeros(size // _FLOAT_BYTES, np.float32)
            for name, array in arrays.items():
                first = offsets[name] // _FLOAT_BYTES
                packed[first : first + array.size] = array.ravel()
            host.array(packed.shape)[...] = packed
            stream.upload(self._memory, host, size)
            stream.synchronize()
            host.array(packed.shape)[...] = 0
            stream.download(host, self._memory, size)
            stream.synchronize()
            if host.array(packed.shape).tobytes() != packed.tobytes():
                raise DarsrError(what, "its weights on the device are not those of the file", "check the GPU's memory")
            on_failure.pop_all()
        self.addresses = {name: self._memory.address + offset for name, offset in offsets.items()}

    def free(self) -> None:
        """Give the memory back."""
        self._memory.free()


class Chain:
    """Engines on one GPU with their buffers, which grow as sizes ask for it. The memory of activations is shared.

    A single engine is a chain of one step. Not to be used by two threads at the same moment.

    Args:
        library: of the family that built the engines.
        graphs: replay what ran once as a CUDA graph.
        jit_folder: as of :class:`.context.TrtContext`.
    """

    def __init__(self, library: Library, device: int = 0, graphs: bool = True, jit_folder: Path | None = None) -> None:
        self._library, self._graphs, self._jit_folder = library, graphs, jit_folder
        self.engines: dict[str, TrtContext] = {}
        with contextlib.ExitStack() as held:
            self.device = Device(device)
            held.callback(self.device.close)
            self.stream = Stream(self.device)
            held.callback(self.stream.close)
            self._buffers: dict[str, DeviceMemory] = {}
            self._host: dict[str, HostMemory] = {}
            self._scratch = DeviceMemory(self.device)
            held.callback(self.release)
            held.callback(self._close_engines)
            self._ready: Hashable = None  # what the shapes and the memory of the contexts are set for
            self._replay: Graph | None = None
            self._ran = False
            held.callback(self._forget)
            self._held: contextlib.ExitStack | None = held.pop_all()

    def open(self, graph: str, data: bytes, facts: EngineFacts, what: str, *, alternates: bool = False) -> TrtContext:
        """Load an engine.

        Args:
            alternates: its buffers change from turn to turn within one chain, so that TensorRT for RTX had to capture its
                own graph anew each time: it then captures none.
        """
        self.device.use()
        graphs = self._graphs and not alternates
        self.engines[graph] = TrtContext(self._library, data, facts, what, graphs=graphs, jit_folder=self._jit_folder)
        return self.engines[graph]

    def drop(self, graph: str) -> None:
        """Close an engine."""
        self._forget()
        self.engines.pop(graph).close()

    def run(
        self,
        key: Hashable,
        steps: list[Step],
        feeds: Mapping[str, np.ndarray],
        shapes: Mapping[str, Shape],
        weights: Weights | None = None,
        *,
        marks: list[Event] | None = None,
    ) -> np.ndarray:
        """Upload, run all steps, download what the last one gives.

        Args:
            key: equal for calls with the same steps, weights and shapes.
            feeds: float32, by buffer.
            shapes: of the other buffers.
            weights: further inputs of the engines.
            marks: gets four events: before and after the upload, after the steps, after the download.

        Raises:
            OutOfMemory: the device has no room for these shapes; all buffers were freed.
            DarsrError: any other failure.
        """
        self.device.use()
        shapes = {**shapes, **{name: array.shape for name, array in feeds.items()}}
        try:
            if key != self._ready:
                self._prepare(steps, feeds, shapes, weights)
                self._ready = key
            return self._run_once(steps, feeds, shapes[steps[-1].to], weights, marks)
        except OutOfMemory:
            self.release()
            raise

    def held_bytes(self) -> int:
        """Return what the buffers hold on the device, weights and code not counted."""
        return sum(memory.size for memory in (*self._buffers.values(), self._scratch))

    def free_bytes(self) -> int:
        """Return what a run may take: what the device has left, what the buffers hold, and no more than the host has."""
        self.device.use()
        device, host = self.device.memory()[0] + self.held_bytes(), free_memory()
        return device if host is None else min(device, host)

    def release(self) -> None:
        """Free all buffers; the next run reserves what it needs."""
        self._forget()
        for memory in (*self._buffers.values(), *self._host.values(), self._scratch):
            memory.free()
        self._buffers.clear()
        self._host.clear()

    def save_compiled(self) -> None:
        """Write what TensorRT for RTX compiled since."""
        for engine in self.engines.values():
            engine.save_compiled()

    def close(self) -> None:
        """Give back everything."""
        if self._held is not None:
            self.device.use()
            self.save_compiled()
            self._held.close()
            self._held = None

    def _prepare(self, steps: list[Step], feeds: Mapping, shapes: Mapping[str, Shape], weights: Weights | None) -> None:
        """Reserve buffers and set the shapes of the contexts."""
        self._forget()
        for name in sorted({name for step in steps for name in (*step.inputs.values(), step.to)}):
            self._buffers.setdefault(name, DeviceMemory(self.device)).reserve(_bytes(shapes[name]))
        for name in (*feeds, steps[-1].to):
            self._host.setdefault(name, HostMemory(self.device)).reserve(_bytes(shapes[name]))
        turns = {step.graph: step for step in steps}
        scratch, bound = 0, {} if weights is None else weights.shapes
        for graph, step in turns.items():
            given = bound | {name: shapes[buffer] for name, buffer in step.inputs.items()}
            engine = self.engines[graph]
            engine.set_shapes({name: given[name] for name in engine.inputs}, step.output, shapes[step.to])
            scratch = max(scratch, engine.scratch_bytes())
        self._scratch.reserve(scratch)
        for graph in turns:  # one after the other on one stream, so they may share it
            self.engines[graph].set_scratch(self._scratch)

    def _run_once(
        self, steps: list[Step], feeds: Mapping, shape: Shape, weights: Weights | None, marks: list[Event] | None
    ) -> np.ndarray:
        def mark() -> None:
            if marks is not None:
                marks.append(Event(self.device))
                marks[-1].record(self.stream)

        if self._ran and self._replay is None and self._graphs and self._library.family.name == "trt":
            self._capture(steps, weights)
        mark()
        for name, array in feeds.items():
            self._host[name].array(array.shape)[...] = array
            self.stream.upload(self._buffers[name], self._host[name], array.nbytes)
        mark()
        if self._replay is not None:
            self._replay.launch(self.stream)
        else:
            self._enqueue(steps, weights)
        mark()
        result = steps[-1].to
        self.stream.download(self._host[result], self._buffers[result], _bytes(shape))
        mark()
        self.stream.synchronize()
        self._ran = True
        return self._host[result].array(shape).copy()

    def _enqueue(self, steps: list[Step], weights: Weights | None) -> None:
        bound = {} if weights is None else weights.addresses
        for step in steps:
            engine = self.engines[step.graph]
            own = {**step.inputs, step.output: step.to}
            addresses = {name: bound[name] for name in engine.inputs if name in bound}
            for name, address in (addresses | {name: self._buffers[b].address for name, b in own.items()}).items():
                engine.set_address(name, address)
            engine.enqueue(self.stream)

    def _capture(self, steps: list[Step], weights: Weights | None) -> None:
        """Record all steps as one graph; only after a run with these shapes, as TensorRT defers work until then."""
        self.stream.begin_capture()
        try:
            try:
                self._enqueue(steps, weights)
            finally:  # a stream left capturing could not be used any more
                self._replay = self.stream.end_capture()
        except DarsrError:  # not every layer can be captured; enqueued it only costs time
            self._graphs, self._replay = False, None

    def _forget(self) -> None:
        if self._replay is not None:
            self._replay.close()
        self._ready, self._ran, self._replay = None, False, None

    def _close_engines(self) -> None:
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()


def _bytes(shape: Shape) -> int:
    return _FLOAT_BYTES * int(np.prod(shape))
