"""The two families of TensorRT behind one interface: which is installed, its version, and how to get it.

Which GPU an engine is for, and whether it is the one at hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import DarsrError
from ..install import install, works_here
from .cuda import Device
from .engine_file import EngineFacts

FLAGS_DEPRECATED = (10, 12)  # builder flags for precisions; they are gone in 11, and RTX never had them


@dataclass(frozen=True)
class Family:
    """``trt``: enterprise TensorRT, built on the GPU it is for. ``trt-rtx``: TensorRT for RTX, built anywhere."""

    name: str
    title: str
    modules: tuple[str, ...]  # import names, the first that is there
    note: str = ""  # where it comes from on some machines

    @property
    def install(self) -> str:
        """Return the command that installs it."""
        return install(self.name) + self.note


FAMILIES = {
    "trt": Family(
        "trt",
        "TensorRT",
        ("tensorrt",),
        " (on a Jetson it comes with JetPack: apt install python3-libnvinfer, and a venv with --system-site-packages)",
    ),
    "trt-rtx": Family(
        "trt-rtx",
        "TensorRT for RTX",
        ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    ),
}


@dataclass(frozen=True)
class Library:
    """An imported TensorRT."""

    family: Family
    module: ModuleType
    version: str  # as it says itself, 10.3.0.26

    @property
    def release(self) -> tuple[int, int]:
        """Return major and minor version, to be compared as numbers."""
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)

    @property
    def has_flags(self) -> bool:
        """Return whether a precision can be asked for with builder flags as well."""
        return self.family.name == "trt" and self.release < FLAGS_DEPRECATED


def installed(family: Family) -> str | None:
    """Return the module of a family that is installed here, without importing it."""
    return next((name for name in family.modules if importlib.util.find_spec(name) is not None), None)


def choose_family(asked: str) -> Family:
    """Return the family that ``--engine`` means: for ``trt`` the enterprise one if present, else TensorRT for RTX."""
    if asked == "trt" and installed(FAMILIES["trt"]) is None and installed(FAMILIES["trt-rtx"]) is not None:
        return FAMILIES["trt-rtx"]
    return FAMILIES[asked]


def import_library(family: Family) -> Library:
    """Import a family.

    Raises:
        DarsrError: not installed, or an installation that cannot be loaded. The line holds the command that installs it.
    """
    name = installed(family)
    if name is None:
        raise DarsrError(family.title, "is not installed", f"install it: {family.install}; {works_here()}")
    try:
        module = importlib.import_module(name)
        return Library(family, module, module.__version__)
    except (
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
    ) as error:  # a stub without libraries raises all of these
        first = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise DarsrError(
            family.title,
            f"is installed, but cannot be loaded ({first})",
            f"install it anew: {family.install}; {works_here()}",
        ) from error


def make_logger(module: Any) -> Any:
    """Return a logger that keeps errors for the one line a user gets, instead of printing them."""

    class Logger(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: object, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def why(self) -> str:
            """Return the first error, which is the cause of those behind it."""
            return self.errors[0][:240] if self.errors else "no reason given"

    return Logger()


def known_targets(library: Library) -> list[str]:
    """Return the compute capabilities that a TensorRT for RTX builds for."""
    members = library.module.ComputeCapability.__members__
    return [f"sm_{name[2:]}" for name in members if name.startswith("SM")]


def check_targets(library: Library, targets: tuple[str, ...]) -> None:
    """Refuse what the library does not build for.

    Raises:
        DarsrError: for ``trt`` any target, for ``trt-rtx`` one it does not know, such as a Jetson's.
    """
    if library.family.name == "trt":
        if targets:
            raise DarsrError(
                f"--target {','.join(targets)}",
                "TensorRT builds for the GPU it runs on",
                "use --format trt-rtx, or build there",
            )
        return
    for target in targets:
        if target not in known_targets(library):
            raise DarsrError(
                f"--target {target}",
                f"TensorRT for RTX {library.version} builds for {', '.join(known_targets(library))}",
                "for a Jetson (Orin is sm_87) or another GPU use --format trt on the device itself",
            )


def require_gpu(library: Library) -> tuple[str, str]:
    """Return name and compute capability of the GPU, if this family runs on it.

    Raises:
        DarsrError: no GPU, or for TensorRT for RTX one that it does not know; the line names what works here.
    """
    with Device() as device:
        name, target = device.name, device.target
    if library.family.name == "trt-rtx":
        try:
            check_targets(library, (target,))
        except DarsrError as error:
            raise DarsrError(
                f"{name} ({target})", error.args[1], f"use TensorRT itself (--engine trt, --format trt); {works_here()}"
            ) from error
    return name, target


def require_version(model: str, facts: EngineFacts, library: Library) -> None:
    """Refuse an engine of another family or version than the one that is installed.

    Raises:
        DarsrError: another one is installed.
    """
    if facts.family != library.family.name:
        raise DarsrError(
            model,
            f"is an engine of {facts.family}, and {library.family.name} was asked for",
            f"use --engine {facts.family}",
        )
    if facts.tensorrt != library.version:
        raise DarsrError(
            model,
            f"was built by {library.family.title} {facts.tensorrt}, and {library.version} is installed",
            "build it again with darsr export, or install that version",
        )


def require_device(model: str, facts: EngineFacts, device: Device) -> None:
    """Refuse an engine that was built for another GPU: enterprise engines run on one model, those for RTX on their targets.

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
