"""The same work on the machines of a Ray cluster; neither Ray nor fsspec is imported unless a cluster is asked for."""
