"""Read, write, resample and measure images."""
