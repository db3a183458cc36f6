"""Pages and sheets drawn as images."""
