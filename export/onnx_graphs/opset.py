"""Constants of exported files, in a module of its own that needs no onnx package."""

from __future__ import annotations

OPSET = 18  # at least
CORRECTED = "darsr_corrected"  # the name of the correction filter's output in a model
