"""One image -> one adapter."""
