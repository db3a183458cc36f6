"""The command line itself; only commands/ rooms and cli.py import it."""
