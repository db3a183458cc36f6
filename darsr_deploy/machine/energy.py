"""Energy of a piece of work, where the machine tells: NVML's counter, a Jetson's power rails, Intel's and AMD's RAPL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import gpu as nvml

_INTERVAL_S = 0.05  # between two readings of a meter that shows power and not energy


class Meter:
    """Adds up the energy of the pieces of work between :meth:`start` and :meth:`stop`.

    Attributes:
        source: ``nvml``, ``jetson``, ``rapl`` or, where nothing can be read, None.
        reason: why there is none.

    Args:
        gpu: the GPU's energy is wanted, not the processor's.
        root: where ``/sys`` lies.
    """

    def __init__(self, gpu: bool, root: Path = Path("/")) -> None:
        rails = _rails(root)
        packages = _packages(root)
        self.source: str | None = None
        self.reason = ""
        self._counter: Callable[[], float | None] | None = None  # joules so far
        self._gauge: Callable[[], float | None] | None = None  # watts now
        self._wraps = 0.0  # joules at which the counter begins again
        if rails:  # of the whole board, so for both kinds of work
            self.source, self._gauge = "jetson", lambda: _board_watts(rails)
        elif gpu and nvml.energy_j() is not None:
            self.source, self._counter = "nvml", nvml.energy_j
        elif gpu and nvml.power_w() is not None:
            self.source, self._gauge = "nvml", nvml.power_w
        elif gpu:
            self.reason = nvml.missing() or "this GPU does not tell its power"
        elif packages:
            self.source = "rapl"
            self._counter = lambda: _package_joules(packages)
            self._wraps = sum(int((p / "max_energy_range_uj").read_text()) for p in packages) / 1e6
        elif list((root / "sys/class/powercap").glob("intel-rapl:*")):
            self.reason = "only root may read RAPL (sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj)"
        else:
            self.reason = "no power meter: neither RAPL, a Jetson's rails nor NVML"
        self.joules = self.seconds = 0.0

    def start(self) -> None:
        """Begin a piece of work."""
        self._started, self._sum, self._readings = time.perf_counter(), 0.0, 0
        if self._counter:
            self._at_start = self._counter()
        elif self._gauge:
            self._done = threading.Event()
            self._thread = threading.Thread(target=self._watch, args=(self._gauge,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End a piece of work and add up its energy."""
        elapsed = time.perf_counter() - self._started
        if self._counter:
            now = self._counter()
            if now is not None and self._at_start is not None:
                self.joules += now - self._at_start + (self._wraps if now < self._at_start else 0.0)
        elif self._gauge:
            self._done.set()
            self._thread.join()
            self.joules += elapsed * self._sum / max(1, self._readings)
        self.seconds += elapsed

    @property
    def watts(self) -> float | None:
        """Return the mean power over all pieces of work; None where there is no meter."""
        return self.joules / self.seconds if self.source and self.seconds else None

    def _watch(self, gauge: Callable[[], float | None]) -> None:
        while True:
            watts = gauge()
            if watts is not None:
                self._sum, self._readings = self._sum + watts, self._readings + 1
            if self._done.wait(_INTERVAL_S):
                return


def _packages(root: Path) -> list[Path]:
    """Return the readable RAPL domains of whole processors (``intel-rapl:0``; ``intel-rapl:0:0`` is a part of it)."""
    found = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    return [p for p in found if p.name.count(":") == 1 and _microjoules(p) is not None]


def _microjoules(package: Path) -> int | None:
    try:
        return int((package / "energy_uj").read_text())
    except (OSError, ValueError):
        return None


def _package_joules(packages: list[Path]) -> float | None:
    readings = [reading for reading in map(_microjoules, packages) if reading is not None]
    return sum(readings) / 1e6 if len(readings) == len(packages) else None


def _rails(root: Path) -> list[tuple[Path, Path]]:
    """Return the files of voltage (mV) and current (mA) of the rails that together feed a Jetson's module (INA3221, hwmon).

    Orin Nano and NX have one input rail, ``VDD_IN``; AGX Orin has three that add up.
    """
    found = {}
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for label in sorted(monitor.glob("in*_label")):
            number = label.name[2:].partition("_")[0]
            rail = monitor / f"in{number}_input", monitor / f"curr{number}_input"
            if all(part.is_file() for part in rail):
                found[label.read_text().strip()] = rail
    for names in (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")):
        if all(name in found for name in names):
            return [found[name] for name in names]
    return []


def _board_watts(rails: list[tuple[Path, Path]]) -> float | None:
    try:
        return sum(int(volts.read_text()) * int(amperes.read_text()) for volts, amperes in rails) / 1e6
    except (OSError, ValueError):
        return None
