"""From a file to the engine that runs it, by the kind of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .engine import Engine
from .errors import DarsrError


def open_engine(model: str | Path, provider: str = "cpu", threads: int = 0) -> Engine:
    """Open an exported model; to be used as a context manager.

    Args:
        model: a file that ``darsr export`` wrote: ``.onnx`` runs in ONNX Runtime.
        provider: ``cpu`` or ``cuda``. The one asked for runs it, or opening fails: never silently another.
        threads: of the CPU; 0 leaves it to the runtime.

    Returns:
        An engine: ``run`` takes float32 N x 3 x H x W in [0, 1] and gives N x 3 x sH x sW; ``spec`` is the model's contract.

    Raises:
        DarsrError: no such file, a kind that is not known, or a runtime that is missing.
    """
    path = Path(model)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise DarsrError(str(path), "is no model that can be opened", f"give one of {', '.join(sorted(_OPENERS))}")
    return opener(path, provider, threads)


def _onnx(path: Path, provider: str, threads: int) -> Engine:
    from .ort_engine import OrtEngine

    return OrtEngine(path, provider, threads)


_OPENERS: dict[str, Callable[[Path, str, int], Engine]] = {".onnx": _onnx}
