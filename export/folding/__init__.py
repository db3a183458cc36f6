"""Fold PyTorch modules into equal modules of plain convolutions."""
