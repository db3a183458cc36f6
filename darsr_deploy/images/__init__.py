"""Pictures: reading, writing, resampling, measuring."""
