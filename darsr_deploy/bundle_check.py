"""A runtime bundle in TensorRT against the same bundle in ONNX Runtime, on the device that runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .adapter import Adapter
from .bundle import Bundle
from .device_check import Reference, pictures, require_built_type, require_device_parity
from .ort_engine import installed_runtimes
from .tiled import TiledEngine
from .trt_bundle import TrtBundleEngine

_TEST_TILE = 24  # LR pixels: several tiles in a test picture


def bundle_parity(
    engine: TrtBundleEngine,
    folder: Path,
    adapter: Adapter | None,
    what: str,
    say: Callable[[str], None],
    floor_db: float | None = None,
) -> float | None:
    """Worst PSNR in dB against the same adapter in the same bundle in ONNX Runtime, whole and in tiles.

    Args:
        what: the bundle's name in lines.
        floor_db: least PSNR; by default the precision's own.

    Returns:
        None where ONNX Runtime is not installed: then only the correction was compared, when it was bound.

    Raises:
        DarsrError: below the floor, or an engine that was built in another type than asked for.
    """
    for graph, information in engine.inspect_each().items():
        require_built_type(information, engine.spec.precision, f"{what}: {graph}")
    if len(installed_runtimes()) != 1:
        say(f"{what}: only the correction was compared on this device (no ONNX Runtime)")
        return None
    reference = Reference("ONNX Runtime", Bundle(folder).engine(adapter).run)
    tests = pictures(engine.shapes, None)
    figures = [require_device_parity(engine, reference, tests, what, floor_db)]
    if engine.locality.halo is not None and max(engine.shapes.least) <= _TEST_TILE:
        figures.append(require_device_parity(_InTiles(engine), reference, tests, what, floor_db))
    return round(min(figures), 2)


class _InTiles(TiledEngine):
    """An engine that computes test pictures in tiles."""

    def __init__(self, engine: TrtBundleEngine) -> None:
        super().__init__(engine, _TEST_TILE)
        self.device, self.inspect = engine.device, engine.inspect
