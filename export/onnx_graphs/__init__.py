"""Build ONNX models and transform them; nothing here reads or writes files."""
