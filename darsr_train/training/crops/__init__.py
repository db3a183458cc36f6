"""Crops that the trainings learn from."""
