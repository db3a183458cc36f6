"""The frozen super-resolution networks: architectures, weight files, the names a user may give."""

from .edge import EdgeSR
from .registry import Backbone, describe, embedded_names, find_scale, import_weights, load_backbone, save_backbone
from .srfbn import SRFBN

__all__ = [
    "SRFBN",
    "Backbone",
    "EdgeSR",
    "describe",
    "embedded_names",
    "find_scale",
    "import_weights",
    "load_backbone",
    "save_backbone",
]
