"""Training what comes with the package; every module but the loop and the crops runs with ``python -m``."""
