"""The frozen super-resolution networks: architectures, weight files, the names a user may give.

Each name is imported on first use: where files lie is known without PyTorch (:mod:`.store`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .edge import EdgeSR
    from .published import download, import_weights
    from .registry import Backbone, describe, load_backbone, save_backbone
    from .srfbn import SRFBN
    from .store import PUBLISHED, embedded_names, installed_names

__all__ = [
    "PUBLISHED",
    "SRFBN",
    "Backbone",
    "EdgeSR",
    "describe",
    "download",
    "embedded_names",
    "import_weights",
    "installed_names",
    "load_backbone",
    "save_backbone",
]
_HOMES = {
    "edge": ("EdgeSR",),
    "published": ("download", "import_weights"),
    "registry": ("Backbone", "describe", "load_backbone", "save_backbone"),
    "srfbn": ("SRFBN",),
    "store": ("PUBLISHED", "embedded_names", "installed_names"),
}


def __getattr__(name: str) -> object:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{home}", __name__), name)
