"""The frozen super-resolution networks: architectures, weight files, the names a user may give."""

from .edge import EdgeSR
from .registry import Backbone, embedded_names, import_weights, load_backbone, save_backbone
from .srfbn import SRFBN

__all__ = ["SRFBN", "Backbone", "EdgeSR", "embedded_names", "import_weights", "load_backbone", "save_backbone"]
