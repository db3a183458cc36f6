"""From an adapted model to files that a device runs (needs PyTorch and onnx)."""
