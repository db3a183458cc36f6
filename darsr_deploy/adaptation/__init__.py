"""One image -> one adapter, without PyTorch: networks that are told the degradation."""
