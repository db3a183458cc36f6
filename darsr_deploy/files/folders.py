"""Where the toolkit keeps things of its own."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Exported models and engines: the user's cache folder, or what DARSR_CACHE names."""
    return Path(os.environ.get("DARSR_CACHE") or platformdirs.user_cache_dir("darsr"))


def data_folder() -> Path:
    """Downloaded backbones: the user's data folder, or what DARSR_DATA names."""
    return Path(os.environ.get("DARSR_DATA") or platformdirs.user_data_dir("darsr"))


def engines_folder() -> Path:
    """Of TensorRT's engines in the cache."""
    return cache_folder() / "engines"
