"""The networks of the correction and of the degradation."""
