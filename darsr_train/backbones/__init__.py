"""The frozen super-resolution networks: architectures, weight files, the names a user may give."""

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
