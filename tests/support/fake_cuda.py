"""A CUDA driver without a GPU, strict about what ``cuda.h`` asks for.

It stands in for ``libcuda`` behind real ctypes functions of the declared argument types. Device memory is memory of the host
that begins as NaN; work in a stream is done when the stream is synchronized and not before; whatever the driver would refuse
is an error code, and what it would not notice (memory freed under running work) an error all the same.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int
from types import SimpleNamespace

import numpy as np

from darsr_deploy.trt.cuda import SIGNATURES

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_DEVICE = 1, 2, 3, 101
INVALID_CONTEXT, INVALID_HANDLE, NOT_READY, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 201, 400, 600, 900, 901
ALIGNMENT = 256


class FakeDriver:
    """One GPU.

    Attributes:
        memory: bytes that can be had; more is CUDA_ERROR_OUT_OF_MEMORY.
        capturable: False as if a layer did what cannot be captured.
        launches: how often a graph was launched.
    """

    def __init__(self, name: str = "Fake RTX", target: tuple[int, int] = (8, 9), memory: int = 2**31, count: int = 1):
        self.name, self.target, self.memory, self.count, self.launches = name, target, memory, count, 0
        self.capturable = True
        self.blocks: dict[int, np.ndarray] = {}  # device memory by address
        self.pages: dict[int, np.ndarray] = {}  # page-locked host memory
        self.streams: dict[int, list[Callable]] = {}  # work that waits
        self.capturing: dict[int, list[Callable]] = {}
        self.graphs: dict[int, list[Callable]] = {}
        self.executables: dict[int, list[Callable]] = {}
        self.events: dict[int, float | None] = {}
        self.contexts, self.initialized = 0, False
        self._current, self._handles = threading.local(), itertools.count(0x1000, 16)
        self._clock = itertools.count(1)
        # Held: ctypes does not keep callbacks alive.
        self._functions = {n: CFUNCTYPE(c_int, *a)(getattr(self, n)) for n, a in SIGNATURES.items()}

    def library(self) -> SimpleNamespace:
        return SimpleNamespace(**self._functions)

    def left_over(self) -> dict[str, int]:
        """What was not given back."""
        kinds = ("blocks", "pages", "streams", "graphs", "executables", "events")
        found = {kind: len(getattr(self, kind)) for kind in kinds} | {"contexts": self.contexts}
        return {kind: count for kind, count in found.items() if count}

    def view(self, address: int, size: int, blocks: dict[int, np.ndarray] | None = None) -> np.ndarray:
        """The bytes at an address, all of them inside one block that is still there."""
        for start, block in (self.blocks if blocks is None else blocks).items():
            if start <= address and address + size <= start + len(block):
                return block[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not memory that was reserved, or were freed")

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """What a library that launches kernels does."""
        assert getattr(self._current, "set", False), "no CUDA context is current in this thread"
        assert stream in self.streams, "the stream is the default one, or was destroyed"
        self.capturing.get(stream, self.streams[stream]).append(work)

    def is_capturing(self, stream: int) -> bool:
        return stream in self.capturing

    # --- the driver's functions: arguments as declared, results as error codes

    def cuInit(self, flags):
        self.initialized = True
        return INVALID_VALUE if flags else 0

    def cuDriverGetVersion(self, version):
        version[0] = 13000
        return 0

    def cuDeviceGetCount(self, count):
        count[0] = self.count
        return 0 if self.initialized else NOT_INITIALIZED

    def cuDeviceGet(self, device, index):
        device[0] = index
        return 0 if 0 <= index < self.count else INVALID_DEVICE

    def cuDeviceGetName(self, name, length, device):
        data = self.name.encode()[: length - 1] + b"\0"
        ctypes.memmove(name, data, len(data))
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value[0] = {75: self.target[0], 76: self.target[1], 18: 0}.get(attribute, -1)
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.contexts += 1
        context[0] = 0xC0
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device):
        self.contexts -= 1
        return 0 if self.contexts >= 0 else INVALID_CONTEXT

    def cuCtxSetCurrent(self, context):
        self._current.set = context == 0xC0 and self.contexts > 0
        return 0 if self._current.set else INVALID_CONTEXT

    def cuMemGetInfo_v2(self, free, total):
        free[0], total[0] = self.memory - self._used(), self.memory
        return self._context()

    def cuMemAlloc_v2(self, address, size):
        if not size:
            return INVALID_VALUE
        if self._used() + size > self.memory:
            return OUT_OF_MEMORY
        address[0] = self._reserve(self.blocks, size)
        return self._context()

    def cuMemFree_v2(self, address):
        return self._context() or (0 if self.blocks.pop(address, None) is not None else INVALID_VALUE)

    def cuMemAllocHost_v2(self, address, size):
        address[0] = self._reserve(self.pages, size)
        return self._context()

    def cuMemFreeHost(self, address):
        return self._context() or (0 if self.pages.pop(address, None) is not None else INVALID_VALUE)

    def cuMemcpyHtoDAsync_v2(self, to, source, size, stream):
        return self._copy(stream, lambda: (self.view(to, size), self.view(source, size, self.pages)))

    def cuMemcpyDtoHAsync_v2(self, to, source, size, stream):
        return self._copy(stream, lambda: (self.view(to, size, self.pages), self.view(source, size)))

    def cuStreamCreate(self, stream, flags):
        stream[0] = handle = next(self._handles)
        self.streams[handle] = []
        return self._context()

    def cuStreamDestroy_v2(self, stream):
        return self._context() or (0 if self.streams.pop(stream, None) is not None else INVALID_HANDLE)

    def cuStreamSynchronize(self, stream):
        if stream not in self.streams:
            return INVALID_HANDLE
        if stream in self.capturing:
            return CAPTURE_UNSUPPORTED
        waiting, self.streams[stream] = self.streams[stream], []
        for work in waiting:
            work()
        return self._context()

    def cuStreamBeginCapture_v2(self, stream, mode):
        if stream not in self.streams or stream in self.capturing:
            return INVALID_HANDLE
        self.capturing[stream] = []
        return self._context()

    def cuStreamEndCapture(self, stream, graph):
        if stream not in self.capturing:
            return INVALID_HANDLE
        work = self.capturing.pop(stream)
        if not self.capturable:
            return CAPTURE_INVALIDATED
        graph[0] = handle = next(self._handles)
        self.graphs[handle] = work
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):
        if not self.graphs.get(graph):
            return INVALID_VALUE
        executable[0] = handle = next(self._handles)
        self.executables[handle] = list(self.graphs[graph])
        return 0

    def cuGraphLaunch(self, executable, stream):
        if executable not in self.executables or stream not in self.streams:
            return INVALID_HANDLE
        self.launches += 1
        self.streams[stream] += self.executables[executable]
        return self._context()

    def cuGraphExecDestroy(self, executable):
        return 0 if self.executables.pop(executable, None) is not None else INVALID_HANDLE

    def cuGraphDestroy(self, graph):
        return 0 if self.graphs.pop(graph, None) is not None else INVALID_HANDLE

    def cuEventCreate(self, event, flags):
        event[0] = handle = next(self._handles)
        self.events[handle] = None
        return self._context()

    def cuEventRecord(self, event, stream):
        if event not in self.events or stream not in self.streams:
            return INVALID_HANDLE
        self.streams[stream].append(lambda: self.events.update({event: float(next(self._clock))}))
        return self._context()

    def cuEventElapsedTime(self, milliseconds, start, end):
        if start not in self.events or end not in self.events:
            return INVALID_HANDLE
        if self.events[start] is None or self.events[end] is None:
            return NOT_READY
        milliseconds[0] = self.events[end] - self.events[start]
        return 0

    def cuEventDestroy_v2(self, event):
        return 0 if self.events.pop(event, 0) != 0 else INVALID_HANDLE

    def _context(self) -> int:
        return 0 if getattr(self._current, "set", False) else INVALID_CONTEXT

    def _used(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    def _reserve(self, where: dict[int, np.ndarray], size: int) -> int:
        raw = np.full(size + ALIGNMENT, 0xFF, np.uint8)  # float32 NaN
        offset = -raw.ctypes.data % ALIGNMENT
        where[raw.ctypes.data + offset] = raw[offset : offset + size]
        return raw.ctypes.data + offset

    def _copy(self, stream: int, sides: Callable[[], tuple[np.ndarray, np.ndarray]]) -> int:
        if stream not in self.streams:
            return INVALID_HANDLE
        try:
            sides()
        except AssertionError:
            return INVALID_VALUE

        def work() -> None:
            target, source = sides()
            target[...] = source

        self.capturing.get(stream, self.streams[stream]).append(work)
        return self._context()
