"""Every experiment of the repository: ``python -m export.benchmarks.NAME``."""
