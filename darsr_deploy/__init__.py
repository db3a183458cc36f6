"""Running on the device: numpy and OpenCV; runtimes are optional; never PyTorch at import."""
