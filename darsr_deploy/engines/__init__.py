"""One contract for everything that runs a model, and the runtimes behind it."""
