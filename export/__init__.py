"""From a picture to a larger one, and from an adapted model to files that a device runs (needs PyTorch and onnx).

An installed package has this folder as ``darsr``: ``import darsr`` imports nothing else, and each name is imported on first
use.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # to type checkers it is true; importing typing would take longer than all the rest
if TYPE_CHECKING:
    from darsr_deploy.errors import DarsrError
    from darsr_deploy.files.adapter import Adapter
    from darsr_deploy.images.arrays import read_image, write_image
    from darsr_deploy.opening import open_engine

    from .api import adapt, upscale

__all__ = ["Adapter", "DarsrError", "adapt", "open_engine", "read_image", "upscale", "write_image"]
_HOMES = {
    "Adapter": "darsr_deploy.files.adapter",
    "DarsrError": "darsr_deploy.errors",
    "open_engine": "darsr_deploy.opening",
    "read_image": "darsr_deploy.images.arrays",
    "write_image": "darsr_deploy.images.arrays",
    "adapt": ".api",
    "upscale": ".api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
