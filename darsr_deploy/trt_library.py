"""The two families of TensorRT behind one interface: which is installed, its version, and how to get it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType

from .errors import DarsrError
from .installing import install

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
        """The command that installs it."""
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
        """Major and minor version, compared as numbers."""
        major, minor = re.match(r"(\d+)\.(\d+)", self.version).groups()
        return int(major), int(minor)

    @property
    def has_flags(self) -> bool:
        """Whether a precision can be asked for with builder flags as well."""
        return self.family.name == "trt" and self.release < FLAGS_DEPRECATED


def installed(family: Family) -> str | None:
    """The module of a family that is installed here, without importing it."""
    return next((name for name in family.modules if importlib.util.find_spec(name) is not None), None)


def choose_family(asked: str) -> Family:
    """The family that ``--engine`` means: for ``trt`` the enterprise one if present, else TensorRT for RTX."""
    if asked == "trt" and installed(FAMILIES["trt"]) is None and installed(FAMILIES["trt-rtx"]) is not None:
        return FAMILIES["trt-rtx"]
    return FAMILIES[asked]


def works_here() -> str:
    """The engine that does run on this machine, as the end of an error line."""
    for module, name in (("onnxruntime", "ort"), ("torch", "torch")):
        if importlib.util.find_spec(module) is not None:
            return f"--engine {name} works here"
    return f"or {install('ort')} and use --engine ort"


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


def make_logger(module: ModuleType):
    """A logger that keeps errors for the one line a user gets, instead of printing them."""

    class Logger(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: object, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def why(self) -> str:
            """The first error, which is the cause of those behind it."""
            return self.errors[0][:240] if self.errors else "no reason given"

    return Logger()
