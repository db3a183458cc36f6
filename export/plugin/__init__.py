"""The fused correction filter for TensorRT: build its sources and put it into models."""
