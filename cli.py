"""The command line of a clone: ``python cli.py``. An installed package has it as ``darsr`` (see docs/python.md)."""

from export.cli import app

if __name__ == "__main__":
    app()
