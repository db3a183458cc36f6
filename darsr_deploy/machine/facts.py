"""What a figure was measured on: processor, memory, GPU, versions, power mode; and how warm and how busy it was.

Everything is read from files of the Linux kernel and of JetPack, from the metadata of installed packages (none is imported)
and from NVML through nvidia-ml-py where that is installed. What a machine does not tell is null.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from . import gpu as nvml

ROOT = Path("/")
# What decides how fast a network runs, in /proc/cpuinfo's words (x86: flags, ARM: Features).
_SIMD = [
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
    *("sve2", "sme"),
]
_ENGINE_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "torch": ("torch",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt_rtx", "tensorrt-rtx-cu12-bindings"),
}


def facts(root: Path = ROOT) -> dict:
    """Return what does not change during a measurement.

    Args:
        root: where ``/proc``, ``/sys`` and ``/etc`` lie (tests give a tree of their own).

    Returns:
        JSON values: ``os, python, cpu, cores, cores_usable, simd, ram_mb, board, jetpack, l4t, power_mode, governor, gpus,
        driver, cuda, onnxruntime, torch, tensorrt, tensorrt_rtx, darsr, git_commit``; null where it is not known.
    """
    gpus, driver, cuda = nvml.describe()
    found = {
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **_processor(root),
        "ram_mb": _kilobytes(root / "proc/meminfo", "MemTotal"),
        **_jetson(root),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "gpus": gpus,
        "driver": driver,
        "cuda": cuda,
    }
    versions = {name: package_version(*packages) for name, packages in _ENGINE_PACKAGES.items()}
    return found | versions | {"darsr": package_version("darsr"), "git_commit": git_commit()}


def state(root: Path = ROOT) -> dict:
    """Return what changes during a measurement.

    Returns:
        ``load`` (of one minute), ``clocks_mhz`` (lowest and highest of the cores now), ``temperatures_c`` by sensor,
        ``throttled`` (events counted by the kernel since start, and what the GPU says now), ``gpus`` (clock, temperature).
    """
    load = _text(root / "proc/loadavg")
    return {
        "load": float(load.split()[0]) if load else None,
        "clocks_mhz": _clocks(root),
        "temperatures_c": _temperatures(root),
        "throttled": {"cpu_events": _throttle_events(root), "gpu": nvml.throttle_reasons()},
        "gpus": nvml.conditions(),
    }


def throttled_between(start: dict, end: dict) -> bool | None:
    """Return whether the machine slowed itself down between two :func:`state`; None where it tells nothing."""
    before, after = start["throttled"], end["throttled"]
    events = None if after["cpu_events"] is None else after["cpu_events"] > (before["cpu_events"] or 0)
    gpu = None if after["gpu"] is None else bool(after["gpu"] or before["gpu"])
    return None if events is None and gpu is None else bool(events or gpu)


def package_version(*names: str) -> str | None:
    """Return the version of the first of these distributions that is installed; the package itself is not imported."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def git_commit(checkout: Path | None = None) -> str | None:
    """Return the commit of the checkout that this package runs from, with ``-dirty`` after changes; None if installed."""
    folder = checkout or Path(__file__).parent.parent.parent
    if not (folder / "pyproject.toml").is_file() or not (folder / ".git").exists():
        return None  # site-packages may lie inside somebody else's repository
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor(root: Path) -> dict:
    text = _text(root / "proc/cpuinfo") or ""
    entries = re.findall(r"^([\w ]+?)\s*: ?(.*)$", text, re.M)
    first = {key: value.strip() for key, value in reversed(entries)}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    # ARM's cpuinfo has numbers for names: implementer and part
    arm = f"ARM implementer {first['CPU implementer']} part {first['CPU part']}" if "CPU part" in first else None
    return {
        "cpu": first.get("model name") or first.get("Model") or arm or platform.processor() or None,
        "cores": sum(key == "processor" for key, _ in entries) or os.cpu_count(),
        "cores_usable": usable_cores(),
        "simd": [flag for flag in _SIMD if flag in flags],
    }


def _jetson(root: Path) -> dict:
    board = _text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")
    release = re.search(r"R(\d+).*?REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release") or "")
    packages = _text(root / "var/lib/dpkg/status") if release else None
    jetpack = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: (\S+)", packages or "", re.M)
    return {
        "board": board,
        "l4t": f"{release[1]}.{release[2]}" if release else None,
        "jetpack": jetpack[1] if jetpack else None,
        "power_mode": _power_mode(root),
    }


def _power_mode(root: Path) -> str | None:
    """Return nvpmodel's mode, ``2 (MODE_30W)``: its status file holds the number, its configuration the name."""
    number = re.search(r"\d+", _text(root / "var/lib/nvpmodel/status") or "")
    if not number:
        return None
    configuration = _text(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"POWER_MODEL ID={int(number[0])} NAME=(\w+)", configuration)
    return f"{int(number[0])} ({name[1]})" if name else str(int(number[0]))


def _clocks(root: Path) -> list[float] | None:
    """Return the lowest and highest MHz of the cores."""
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [float(value) / 1000 for value in map(_text, cores) if value]
    clocks = clocks or [
        float(v) for v in re.findall(r"^cpu MHz\s*: ([\d.]+)", _text(root / "proc/cpuinfo") or "", re.M)
    ]
    return [min(clocks), max(clocks)] if clocks else None


def _temperatures(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _text(zone / "temp")
        if value and re.fullmatch(r"-?\d+", value):  # sensors that are switched off give an error or nothing
            name = _text(zone / "type") or zone.name
            found[name if name not in found else zone.name] = int(value) / 1000
    return found


def _throttle_events(root: Path) -> int | None:
    counters = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    values = [int(value) for value in map(_text, counters) if value]
    return sum(values) if values else None


def _kilobytes(path: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB", _text(path) or "", re.M)
    return int(found[1]) // 1024 if found else None


def _text(path: Path) -> str | None:
    """Return a small file's text; None where there is none, or the kernel refuses."""
    try:
        return path.read_text(errors="replace").strip("\0 \n") or None
    except OSError:
        return None
