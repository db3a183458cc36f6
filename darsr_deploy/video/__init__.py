"""Read and write videos as sequences of frames."""
