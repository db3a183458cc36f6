"""The commands of ``darsr`` that need training code."""
