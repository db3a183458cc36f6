"""Read and write files: strictly, with checksums, whole or not at all."""
