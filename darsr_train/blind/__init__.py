"""Networks that are told what happened to an image, and the one that finds it out."""
