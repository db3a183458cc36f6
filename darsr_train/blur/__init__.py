"""Estimates of an image's blur from the image alone."""
