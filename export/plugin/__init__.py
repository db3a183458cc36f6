"""The fused correction filter for TensorRT: its sources, built and put into models."""
