"""Run on the device: numpy and OpenCV; runtimes are optional; never PyTorch at import.

``from darsr_deploy import adapt, open_engine, upscale, read_image, write_image, DarsrError``: each is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adaptation.adapt import adapt
    from .engines.upscale import upscale
    from .errors import DarsrError
    from .images.arrays import read_image, write_image
    from .opening import open_engine

__all__ = ["DarsrError", "adapt", "open_engine", "read_image", "upscale", "write_image"]
_HOMES = {
    "DarsrError": "errors",
    "adapt": "adaptation.adapt",
    "open_engine": "opening",
    "read_image": "images.arrays",
    "upscale": "engines.upscale",
    "write_image": "images.arrays",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
