"""The coefficients beside a model of form ``filters``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .container import read_container
from .model_spec import (
    COEFFICIENTS_KIND,
    COEFFICIENTS_VERSION,
    ModelSpec,
    coefficients_path,
)


def read_coefficients(model: str | Path, spec: ModelSpec) -> np.ndarray:
    """Read the coefficients beside a model of form ``filters``: float32 1 x 13 x H x W.

    Raises:
        DarsrError: the file is missing, damaged, or was written for another model.
    """
    path = coefficients_path(model)
    _, arrays, digest = read_container(path, COEFFICIENTS_KIND, COEFFICIENTS_VERSION, f"copy it from beside {model}")
    coefficients = arrays.get("coeff", np.empty(0))
    if digest != spec.coefficients_sha256 or coefficients.shape != (1, 13, spec.source_height, spec.source_width):
        raise DarsrError(str(path), f"does not belong to {model}", "export both again")
    return coefficients
