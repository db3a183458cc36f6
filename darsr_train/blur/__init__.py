"""Which blur an image has: estimates from the image alone."""
