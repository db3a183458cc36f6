"""Measuring engines against each other on one machine."""
