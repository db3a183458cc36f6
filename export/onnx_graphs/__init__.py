"""ONNX model -> ONNX model; nothing here knows of files."""
