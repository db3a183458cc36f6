"""PyTorch module -> equal module of plain convolutions."""
