"""Training of the networks that come with the package, and of backbones."""
