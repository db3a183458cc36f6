"""From what a user names to an engine that runs it."""
