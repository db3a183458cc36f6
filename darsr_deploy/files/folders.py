"""The folders where the toolkit keeps its own files."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from ..errors import DarsrError

WEIGHTS = Path(__file__).parent.parent / "weights"  # of the networks that come with the package


def cache_folder() -> Path:
    """Return the folder of exported models and engines: the user's cache folder, or DARSR_CACHE."""
    return Path(os.environ.get("DARSR_CACHE") or platformdirs.user_cache_dir("darsr"))


def data_folder() -> Path:
    """Return the folder of downloaded backbones: the user's data folder, or DARSR_DATA."""
    return Path(os.environ.get("DARSR_DATA") or platformdirs.user_data_dir("darsr"))


def engines_folder() -> Path:
    """Return the folder of TensorRT's engines in the cache."""
    return cache_folder() / "engines"


def make_cache_folder(folder: Path) -> None:
    """Make a folder in the cache.

    Raises:
        DarsrError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarsrError(
            str(folder),
            f"the cache folder cannot be made ({error.strerror})",
            "set DARSR_CACHE to a folder that can be written",
        ) from error
