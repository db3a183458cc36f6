"""NVIDIA's management library through nvidia-ml-py: which GPUs there are, their memory, energy and temperature.

Nothing here fails: a machine without the package, the driver or a GPU has empty answers, and :func:`missing` says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..install import install

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean: slower than it could be.
_THROTTLE = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


def driver_library() -> str | None:
    """Return which library of the NVIDIA driver can be loaded: ``libcuda.so.1``, ``nvcuda.dll``; None without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None


def on_the_bus(root: Path = Path("/")) -> bool:
    """Return whether Linux sees an NVIDIA display controller on the PCI bus, with a driver or without."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == "0x10de" and kind.startswith("0x03"):
                return True
    return False


def missing() -> str | None:
    """Return why nothing can be read, with a hint; None where it can."""
    if importlib.util.find_spec("pynvml") is None:
        return f"nvidia-ml-py is not installed ({install('bench')})"
    return None if _nvml() else "no NVIDIA driver answers"


def describe() -> tuple[list[dict], str | None, str | None]:
    """Return ``(gpus, driver version, CUDA version that the driver supports)``.

    A GPU has ``name, memory_mb, compute_capability, power_limit_w``.
    """
    lib = _nvml()
    if lib is None:
        return [], None, None
    gpus = []
    for handle in _handles(lib):
        capability = _ask(lib.nvmlDeviceGetCudaComputeCapability, handle)
        memory = _ask(lib.nvmlDeviceGetMemoryInfo, handle)
        limit = _ask(lib.nvmlDeviceGetEnforcedPowerLimit, handle)
        gpus.append(
            {
                "name": _as_text(_ask(lib.nvmlDeviceGetName, handle)),
                "memory_mb": memory and memory.total // 2**20,
                "compute_capability": capability and f"{capability[0]}.{capability[1]}",
                "power_limit_w": limit and limit / 1000,
            }
        )
    cuda = _ask(lib.nvmlSystemGetCudaDriverVersion_v2)
    driver = _as_text(_ask(lib.nvmlSystemGetDriverVersion))
    return gpus, driver, cuda and f"{cuda // 1000}.{cuda % 1000 // 10}"


def conditions() -> list[dict]:
    """Return ``clock_mhz`` of the multiprocessors and ``temperature_c`` of each GPU, now."""
    lib = _nvml()
    return [
        {
            "clock_mhz": _ask(lib.nvmlDeviceGetClockInfo, h, lib.NVML_CLOCK_SM),
            "temperature_c": _ask(lib.nvmlDeviceGetTemperature, h, lib.NVML_TEMPERATURE_GPU),
        }
        for h in (_handles(lib) if lib else [])
    ]


def throttle_reasons() -> list[str] | None:
    """Return why GPUs run slower than they could, now; None where none tells."""
    lib = _nvml()
    masks = [_ask(lib.nvmlDeviceGetCurrentClocksThrottleReasons, h) for h in (_handles(lib) if lib else [])]
    known = [mask for mask in masks if mask is not None]
    return sorted({text for mask in known for bit, text in _THROTTLE.items() if mask & bit}) if known else None


def memory_used_mb(index: int = 0) -> float | None:
    """Return the MiB of a GPU that all processes together use."""
    lib = _nvml()
    info = lib and _ask(lambda: lib.nvmlDeviceGetMemoryInfo(_handles(lib)[index]))
    return info.used / 2**20 if info else None


def energy_j(index: int = 0) -> float | None:
    """Return the energy counter of a GPU (Volta and newer) in joules."""
    lib = _nvml()
    energy = lib and _ask(lambda: lib.nvmlDeviceGetTotalEnergyConsumption(_handles(lib)[index]))
    return None if energy is None else energy / 1000


def power_w(index: int = 0) -> float | None:
    """Return the power that a GPU draws now, in watts."""
    lib = _nvml()
    power = lib and _ask(lambda: lib.nvmlDeviceGetPowerUsage(_handles(lib)[index]))
    return None if power is None else power / 1000


def _nvml() -> Any:
    """Return the initialised module; None where package, driver or GPU is missing."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    lib = importlib.import_module("pynvml")
    try:
        lib.nvmlInit()  # counts: calling it again costs nothing
    except lib.NVMLError:
        return None
    return lib


def _handles(lib: Any) -> list:
    count = _ask(lib.nvmlDeviceGetCount) or 0
    return [lib.nvmlDeviceGetHandleByIndex(i) for i in range(count)]


def _ask(question: Callable[..., Any], *arguments: object) -> Any:
    """Return the answer, or None where this GPU or driver does not know (Jetsons answer few questions)."""
    import pynvml

    try:
        return question(*arguments)
    except (pynvml.NVMLError, IndexError):
        return None


def _as_text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
