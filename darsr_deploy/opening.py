"""From a file to the engine that runs it, by the kind of the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .engine import Engine
from .errors import DarsrError
from .file_kinds import another_kind
from .tiled import TiledEngine


def open_engine(
    model: str | Path,
    provider: str = "cpu",
    threads: int = 0,
    adapter: str | Path | None = None,
    trust: bool = False,
    tile: int | None = None,
) -> TiledEngine:
    """Open an exported model; to be used as a context manager.

    Args:
        model: what ``darsr export`` wrote: a file ``.onnx`` or a runtime bundle run in ONNX Runtime, ``.engine`` in TensorRT.
        provider: of ONNX Runtime, ``cpu`` or ``cuda``. The one asked for runs it, or opening fails: never silently another.
        threads: of the CPU; 0 leaves it to the runtime.
        adapter: an adapter file to run in a bundle; by default the one that it was exported from.
        trust: load an engine file that was not built on this machine. An engine is code.
        tile: side of the tiles of large images, in LR pixels; None: as the free memory allows, 0: never.

    Returns:
        An engine: ``run`` takes float32 N x 3 x H x W in [0, 1] and gives N x 3 x sH x sW; ``spec`` is the model's contract.

    Raises:
        DarsrError: no such file, a kind that is not known, a runtime or a GPU that is missing, an adapter that does not fit.
    """
    path = Path(model)
    if path.is_dir():
        engine = _bundled(path, provider, threads, adapter)
    elif adapter is not None:
        raise DarsrError(
            str(path), "holds its correction, and an adapter was given", "give a bundle (darsr export --split)"
        )
    elif path.suffix.lower() == ".onnx":
        from .ort_engine import OrtEngine

        engine = OrtEngine(path, provider, threads)
    elif path.suffix.lower() == ".engine":
        from .trt_engine import TrtEngine

        engine = TrtEngine(path, trust)
    else:
        raise another_kind(path, "model", "engine") or DarsrError(
            str(path), "is no model that can be opened", "give a bundle, or a file .onnx or .engine"
        )
    return TiledEngine(engine, tile)


def engine_of_bundle(folder: Path, asked: str = "auto") -> str:
    """What runs a bundle: ``auto`` is ONNX Runtime where it is installed, else the family of the engines that it holds.

    Raises:
        DarsrError: a damaged sidecar of an engine.
    """
    from .engine_file import SUFFIX, read_facts
    from .ort_engine import installed_runtimes

    if asked != "auto" or installed_runtimes():
        return "ort" if asked == "auto" else asked
    own = sorted(folder.glob(f"*{SUFFIX}"))
    return read_facts(own[0]).family if own else "ort"  # whose error says what to install


def _bundled(folder: Path, provider: str, threads: int, adapter: str | Path | None) -> Engine:
    from .adapter import Adapter
    from .bundle import Bundle

    bundle = Bundle(folder, provider, threads)
    path = adapter or bundle.own_adapter()
    if path is None:
        raise DarsrError(str(folder), "holds no adapter of its own", "give one")
    return bundle.engine(Adapter.load(path), path, hashlib.sha256(Path(path).read_bytes()).hexdigest())
