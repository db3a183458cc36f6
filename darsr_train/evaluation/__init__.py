"""Measuring on sets whose truth is known, and making such sets."""
