"""What blurs, noises and compresses an image, as numbers: NumPy alone."""
