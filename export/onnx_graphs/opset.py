"""The opset of exported files. Alone in its file, for a device reads it without the onnx package."""

from __future__ import annotations

OPSET = 18  # of exported files, at least
