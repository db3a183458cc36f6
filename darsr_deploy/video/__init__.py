"""Videos as sequences of frames: readers, writers, and work done meanwhile."""
