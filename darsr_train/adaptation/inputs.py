"""Refuse unusable images before PyTorch is imported."""

from __future__ import annotations

from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.reader import size_of

from .options import AdaptOptions


def check_input(image: Path, options: AdaptOptions) -> None:
    """Check an image by its header.

    Raises:
        DarsrError: it cannot be read, is no image, or is too small to adapt.
    """
    check_size(image, *size_of(image), options)


def check_size(image: Path, width: int, height: int, options: AdaptOptions) -> None:
    """Refuse an image that is too small to learn from.

    Raises:
        DarsrError: a side is under the profile's least one.
    """
    least = options.least_side()
    if min(width, height) < least:
        raise DarsrError(
            str(image),
            f"is {width}x{height} pixels, too small to adapt with profile {options.name} (least side {least})",
            "use darsr infer --no-adapter",
        )
