"""Per-image adaptation and training (needs PyTorch)."""
