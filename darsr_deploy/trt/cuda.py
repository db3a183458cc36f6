"""The CUDA driver through ctypes: device memory, streams, graphs, events, and what the device is.

``libcuda`` comes with every NVIDIA driver, on a Jetson too, and TensorRT cannot run without it. Its functions keep their
binary interface from one CUDA version to the next, so nothing has to be installed and no version has to be matched:
cuda-python, 8 MB for one major version of CUDA, would have to be matched on every device for the two dozen calls here.

Names and argument types are those of ``cuda.h`` (CUDA Driver API). Everything happens in the device's primary context, which
is the one that TensorRT, through CUDA's runtime library, uses too.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from types import TracebackType

import numpy as np

from ..errors import DarsrError, OutOfMemory
from ..install import works_here

LIBRARIES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
SIGNATURES: dict[str, tuple] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (POINTER(c_char), c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemAllocHost_v2": (POINTER(c_void_p), c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_COMPUTE_MAJOR, _COMPUTE_MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


def load_library() -> ctypes.CDLL:
    """Load the driver's library.

    Raises:
        DarsrError: there is no NVIDIA driver on this machine.
    """
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise DarsrError(
        "GPU",
        "no NVIDIA driver is installed here (libcuda is missing)",
        f"where there is an NVIDIA GPU, install it (Ubuntu: sudo ubuntu-drivers install); {works_here()}",
    )


class Device:
    """One GPU and its primary context. A context manager: leaving it releases the context.

    Attributes:
        name: as the driver calls it, such as ``NVIDIA GeForce RTX 4090`` or ``Orin``.
        target: its compute capability, ``sm_89``.
        integrated: shares its memory with the CPU, as Jetsons do.

    Raises:
        DarsrError: no driver, or no such device.
    """

    def __init__(self, index: int = 0) -> None:
        self._library = load_library()
        for name, arguments in SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, c_int
        self.call("cuInit", 0, doing="starting the driver")
        count = self._integer("cuDeviceGetCount")
        if index >= count:
            raise DarsrError("GPU", f"device {index} was asked for, the driver sees {count}", works_here())
        self.index = index
        self._handle = self._integer("cuDeviceGet", index)
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, 255, self._handle)
        self.name = text.value.decode(errors="replace")
        major, minor, integrated = (
            self._integer("cuDeviceGetAttribute", attribute, self._handle)
            for attribute in (_COMPUTE_MAJOR, _COMPUTE_MINOR, _INTEGRATED)
        )
        self.target, self.integrated = f"sm_{major}{minor}", bool(integrated)
        self.driver_version = self._integer("cuDriverGetVersion")  # 12060: CUDA 12.6
        self._context: c_void_p | None = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(self._context), self._handle)
        self.use()

    def use(self) -> None:
        """Make the context current in the calling thread, which every thread needs that calls the driver."""
        self.call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def call(self, name: str, *arguments: object, doing: str = "") -> None:
        """Call a function of the driver.

        Raises:
            OutOfMemory: so says the driver.
            DarsrError: any other failure, with the driver's number.
        """
        status = getattr(self._library, name)(*arguments)
        if status == OUT_OF_MEMORY:
            raise OutOfMemory("GPU", f"out of memory{' while ' + doing if doing else ''}", "use smaller tiles")
        if status:
            raise DarsrError(
                "GPU", f"the CUDA driver answers {name} with error {status}{' while ' + doing if doing else ''}",
                "check the driver with nvidia-smi, or use --engine ort",
            )  # fmt: skip

    def _integer(self, name: str, *arguments: object) -> int:
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    def close(self) -> None:
        """Release it."""
        if self._context is not None:
            self._context = None
            self.call("cuDevicePrimaryCtxRelease_v2", self._handle)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Memory:
    """Memory that grows when more is asked for. ``address`` is 0 while it holds nothing."""

    _alloc, _free, _where = "", "", ""
    _pointer: type[c_uint64] | type[c_void_p] = c_uint64

    def __init__(self, device: Device) -> None:
        self._device = device
        self.address, self.size = 0, 0

    def reserve(self, size: int) -> None:
        """Make it at least ``size`` bytes large; what it held is lost where it grows."""
        if size <= self.size:
            return
        self.free()
        address = self._pointer()
        doing = f"reserving {size / 2**20:.0f} MiB{self._where}"
        self._device.call(self._alloc, byref(address), size, doing=doing)
        self.address, self.size = address.value or 0, size

    def free(self) -> None:
        """Give the memory back."""
        if self.address:
            self._device.call(self._free, self.address)
        self.address, self.size = 0, 0


class DeviceMemory(_Memory):
    """Memory on the device. ``cuMemAlloc`` aligns to at least 256 bytes, which is what TensorRT wants."""

    _alloc, _free = "cuMemAlloc_v2", "cuMemFree_v2"


class HostMemory(_Memory):
    """Page-locked memory of the host, which copies to and from the device without a detour."""

    _alloc, _free, _where = "cuMemAllocHost_v2", "cuMemFreeHost", " of the host"
    _pointer = c_void_p

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a float32 view of its beginning, valid until the next ``reserve`` or ``free``."""
        count = int(np.prod(shape))
        if 4 * count > self.size:
            raise ValueError(f"{shape} does not fit into {self.size} bytes")
        return np.ctypeslib.as_array((c_float * count).from_address(self.address)).reshape(shape)


class _Handle:
    """Something of the driver's that is closed once."""

    _destroy = ""

    def __init__(self, device: Device, make: str, *arguments: object) -> None:
        handle = c_void_p()
        device.call(make, byref(handle), *arguments)
        self._device, self.handle = device, handle.value

    def close(self) -> None:
        """Release it."""
        if self.handle:
            self._device.call(self._destroy, self.handle)
            self.handle = 0


class Stream(_Handle):
    """A stream of work that runs in order, beside the default stream."""

    _destroy = "cuStreamDestroy_v2"

    def __init__(self, device: Device) -> None:
        super().__init__(device, "cuStreamCreate", _NON_BLOCKING)

    def upload(self, to: DeviceMemory, source: HostMemory, size: int) -> None:
        """Enqueue a copy from host to device."""
        self._device.call("cuMemcpyHtoDAsync_v2", to.address, source.address, size, self.handle)

    def download(self, to: HostMemory, source: DeviceMemory, size: int) -> None:
        """Enqueue a copy from device to host."""
        self._device.call("cuMemcpyDtoHAsync_v2", to.address, source.address, size, self.handle)

    def synchronize(self) -> None:
        """Wait until all enqueued work is done."""
        self._device.call("cuStreamSynchronize", self.handle, doing="waiting for the result")

    def begin_capture(self) -> None:
        """Record what is enqueued instead of running it."""
        self._device.call("cuStreamBeginCapture_v2", self.handle, _THREAD_LOCAL)

    def end_capture(self) -> Graph:
        """Return what was recorded as a graph."""
        graph = c_void_p()
        self._device.call("cuStreamEndCapture", self.handle, byref(graph))
        try:
            return Graph(self._device, graph)
        finally:
            self._device.call("cuGraphDestroy", graph)


class Graph(_Handle):
    """Work captured from a stream, launched as one."""

    _destroy = "cuGraphExecDestroy"

    def __init__(self, device: Device, graph: c_void_p) -> None:
        super().__init__(device, "cuGraphInstantiateWithFlags", graph, 0)

    def launch(self, stream: Stream) -> None:
        """Enqueue the whole graph."""
        self._device.call("cuGraphLaunch", self.handle, stream.handle)


class Event(_Handle):
    """A moment in a stream, for timing on the device's own clock."""

    _destroy = "cuEventDestroy_v2"

    def __init__(self, device: Device) -> None:
        super().__init__(device, "cuEventCreate", 0)

    def record(self, stream: Stream) -> None:
        """Record the event behind the work that is enqueued."""
        self._device.call("cuEventRecord", self.handle, stream.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Return the milliseconds between two events. Both must have happened: synchronize the stream first."""
        elapsed = c_float()
        self._device.call("cuEventElapsedTime", byref(elapsed), earlier.handle, self.handle)
        return elapsed.value
