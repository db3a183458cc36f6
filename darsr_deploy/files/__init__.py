"""What is read and written: strict, checksummed, whole or not at all."""
