"""The runtime bundle: a folder of graphs that runs any adapter of its architecture."""
