"""A built engine is run on the device it is for and compared, before it is kept: what the parity gate is for files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import DarsrError
from .metrics import psnr
from .noise import detailed_crops, natural_noise
from .ort_engine import OrtEngine, installed_runtimes
from .shapes import Shapes
from .spec import FLOORS_DB
from .trt_engine import TrtEngine

_SIZES = ((48, 64), (61, 75))  # two sizes, one of them odd, where the engine takes more than one
_OTHER_SEED = 11
# How the inspector of one version or another writes the types of the built layers.
_TYPES = {"fp16": r"\b(half|fp16)\b", "bf16": r"\b(bfloat16|bf16)\b", "int8": r"\bint8\b"}


@dataclass(frozen=True)
class Reference:
    """What an engine is compared with: ``PyTorch`` in float32, or the same file in ONNX Runtime where there is no torch."""

    name: str
    run: Callable[[np.ndarray], np.ndarray]  # 1 x 3 x H x W -> 1 x 3 x sH x sW


def reference_from_file(model: Path, precision: str) -> Reference | None:
    """ONNX Runtime on the very file, which was itself compared with PyTorch when it was written; None where it cannot."""
    if precision == "bf16" or len(installed_runtimes()) != 1:
        return None
    engine = OrtEngine(model)
    return Reference("ONNX Runtime", engine.run)


def pictures(shapes: Shapes, photo: np.ndarray | None, one_image: bool = False) -> list[np.ndarray]:
    """Test pictures that an engine takes: synthetic ones, and the crop of highest contrast of the photo.

    Args:
        one_image: the engine is of form ``filters``, for the photo alone.
    """
    if one_image and photo is not None:
        return [photo]
    sizes = [size for size in _SIZES if shapes.holds(*size)] or [shapes.usual]
    found = []
    for size in sizes:
        found.append(natural_noise(*size, seed=_OTHER_SEED))
        crops = [] if photo is None else detailed_crops(photo, *size, 1)
        found += [crop for crop in crops if shapes.holds(*crop.shape[2:])]
    return found


def device_parity_db(engine: TrtEngine, reference: Reference, tests: list[np.ndarray]) -> float:
    """Worst PSNR (peak 1) over the pictures; 200 where they are equal, 0 for NaN. Each runs twice: a graph is replayed."""
    figures = []
    for lr in tests:
        expected = reference.run(lr)
        for _ in range(2):
            got = engine.run(lr)
            figures.append(min(psnr(got, expected, peak=1.0), 200.0) if np.isfinite(got).all() else 0.0)
    return min(figures)


def require_device_parity(
    engine: TrtEngine, reference: Reference, tests: list[np.ndarray], what: str, floor_db: float | None = None
) -> float:
    """Measure parity on the device.

    Raises:
        DarsrError: below the floor of the precision (or ``floor_db``), or an engine of another precision than asked for.
    """
    floor = FLOORS_DB[engine.spec.precision] if floor_db is None else floor_db
    measured = device_parity_db(engine, reference, tests)
    if measured < floor:
        raise DarsrError(
            what,
            f"on {engine.device.name} the engine differs from {reference.name}: {measured:.1f} dB, at least {floor:.1f} dB "
            "are required, so nothing was written",
            "accept it with --floor, or use --precision fp32",
        )
    require_built_type(engine.inspect(), engine.spec.precision, what)
    return measured


def require_built_type(information: str, precision: str, what: str) -> None:
    """The inspector names the type asked for among the built layers.

    Raises:
        DarsrError: it names types, and not this one: an fp32 engine under another name.
    """
    if precision not in _TYPES or not re.search(r"half|fp32|float", information, re.IGNORECASE):
        return
    if not re.search(_TYPES[precision], information, re.IGNORECASE):
        raise DarsrError(what, f"TensorRT built no layer in {precision}", "use --precision fp32, or report this")
