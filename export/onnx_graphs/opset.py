"""The opset of exported files, in a module of its own that needs no onnx package."""

from __future__ import annotations

OPSET = 18  # of exported files, at least
