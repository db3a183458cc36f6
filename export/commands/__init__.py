"""The commands of ``darsr`` that export and run models."""
