"""Files on disk, each behind the parity check."""
