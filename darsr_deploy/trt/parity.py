"""A built engine is run on the device it is for and compared, before it is kept: the parity check of files, on the device.

A runtime bundle in TensorRT against the same bundle in ONNX Runtime, on the device that runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..bundle.ort_bundle import Bundle
from ..engines.ort import OrtEngine, installed_runtimes
from ..engines.tiled import TiledEngine
from ..errors import DarsrError
from ..files.adapter import Adapter
from ..files.model_spec import FLOORS_DB, ModelSpec
from ..images.detail import find_detailed_crops
from ..images.metrics import psnr
from ..images.synthetic import natural_noise
from .bundle import TrtBundleEngine
from .cuda import Device
from .shapes import Shapes

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
    """Return ONNX Runtime on the very file, which was compared with PyTorch when it was written; None where it cannot run it."""
    if precision == "bf16" or len(installed_runtimes()) != 1:
        return None
    engine = OrtEngine(model)
    return Reference("ONNX Runtime", engine.run)


def pictures(shapes: Shapes, photo: np.ndarray | None, one_image: bool = False) -> list[np.ndarray]:
    """Return test images that an engine takes: synthetic ones, and the crop of highest contrast of the photo.

    Args:
        one_image: the engine is of form ``filters``, for the photo alone.
    """
    if one_image and photo is not None:
        return [photo]
    sizes = [size for size in _SIZES if shapes.holds(*size)] or [shapes.opt]
    found = []
    for size in sizes:
        found.append(natural_noise(*size, seed=_OTHER_SEED))
        crops = [] if photo is None else find_detailed_crops(photo, *size, 1)
        found += [crop for crop in crops if shapes.holds(*crop.shape[2:])]
    return found


class Compared(Protocol):
    """What is compared: an engine, one adapter in a bundle, or that in tiles."""

    spec: ModelSpec
    device: Device

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge images."""
        ...

    def inspect(self) -> str:
        """Return what TensorRT says of every layer."""
        ...


def device_parity_db(engine: Compared, reference: Reference, tests: list[np.ndarray]) -> float:
    """Return the worst PSNR (peak 1) over the images: 200 if equal, 0 for NaN. Each runs twice, as a CUDA graph is replayed."""
    figures = []
    for lr in tests:
        expected = reference.run(lr)
        for _ in range(2):
            got = engine.run(lr)
            figures.append(min(psnr(got, expected, peak=1.0), 200.0) if np.isfinite(got).all() else 0.0)
    return min(figures)


def require_device_parity(
    engine: Compared, reference: Reference, tests: list[np.ndarray], what: str, min_psnr_db: float | None = None
) -> float:
    """Run the parity check on the device and return its PSNR in dB.

    Raises:
        DarsrError: below the minimum PSNR of the precision (or ``min_psnr_db``), or an engine of another precision than asked for.
    """
    minimum = FLOORS_DB[engine.spec.precision] if min_psnr_db is None else min_psnr_db
    measured = device_parity_db(engine, reference, tests)
    if measured < minimum:
        raise DarsrError(
            what,
            f"on {engine.device.name} the engine differs from {reference.name}: {measured:.1f} dB, at least {minimum:.1f} dB "
            "are required, so nothing was written",
            "accept it with --floor, or use --precision fp32",
        )
    require_built_type(engine.inspect(), engine.spec.precision, what)
    return measured


def require_built_type(information: str, precision: str, what: str) -> None:
    """Check that TensorRT built layers of the type asked for.

    Raises:
        DarsrError: it names types, and not this one: an fp32 engine under another name.
    """
    if precision not in _TYPES or not re.search(r"half|fp32|float", information, re.IGNORECASE):
        return
    if not re.search(_TYPES[precision], information, re.IGNORECASE):
        raise DarsrError(what, f"TensorRT built no layer in {precision}", "use --precision fp32, or report this")


_TEST_TILE = 24  # LR pixels: several tiles in a test picture


def bundle_parity(
    engine: TrtBundleEngine,
    folder: Path,
    adapter: Adapter | None,
    what: str,
    say: Callable[[str], None],
    min_psnr_db: float | None = None,
) -> float | None:
    """Return the worst PSNR in dB against the same adapter in the same bundle in ONNX Runtime, whole and in tiles.

    Args:
        what: the bundle's name in lines.
        min_psnr_db: minimum PSNR; by default the precision's own.

    Returns:
        None where ONNX Runtime is not installed: then only the correction was compared, when it was bound.

    Raises:
        DarsrError: below the minimum PSNR, or an engine that was built in another type than asked for.
    """
    for graph, information in engine.inspect_each().items():
        require_built_type(information, engine.spec.precision, f"{what}: {graph}")
    if len(installed_runtimes()) != 1:
        say(f"{what}: only the correction was compared on this device (no ONNX Runtime)")
        return None
    reference = Reference("ONNX Runtime", Bundle(folder).engine(adapter).run)
    tests = pictures(engine.shapes, None)
    figures = [require_device_parity(engine, reference, tests, what, min_psnr_db)]
    if engine.locality.halo is not None and max(engine.shapes.min) <= _TEST_TILE:
        figures.append(require_device_parity(_InTiles(engine), reference, tests, what, min_psnr_db))
    return round(min(figures), 2)


class _InTiles(TiledEngine):
    """An engine that computes test pictures in tiles."""

    def __init__(self, engine: TrtBundleEngine) -> None:
        super().__init__(engine, _TEST_TILE)
        self.device, self.inspect = engine.device, engine.inspect
