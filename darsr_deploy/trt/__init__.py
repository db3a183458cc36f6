"""TensorRT: engines loaded, checked, cached and run."""
