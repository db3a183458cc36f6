"""From a file to the engine that runs it, by the kind of the file."""

from __future__ import annotations

import warnings
from pathlib import Path

from .engines.base import Engine
from .engines.tiled import TiledEngine
from .errors import DarsrError
from .files.hashing import hash_file
from .files.kinds import another_kind

ENGINES = ("auto", "ort", "trt", "trt-rtx")


def open_engine(
    model: str | Path,
    provider: str = "cpu",
    threads: int = 0,
    adapter: str | Path | None = None,
    trust: bool = False,
    tile: int | None = None,
    engine: str = "auto",
) -> TiledEngine:
    """Open an exported model; to be used as a context manager.

    Args:
        model: what ``darsr export`` wrote: a file ``.onnx``, ``.engine``, or a runtime bundle.
        provider: of ONNX Runtime, ``cpu`` or ``cuda``. The one asked for runs it, or opening fails: never silently another.
        threads: of the CPU; 0 leaves it to the runtime.
        adapter: an adapter file to run in a bundle; by default the one that it was exported from.
        trust: load an engine file, or a bundle's own engines, that were not built on this machine. An engine is code.
        tile: side of the tiles of large images, in LR pixels; None: as the free memory allows, 0: never.
        engine: what runs it: ``ort`` (ONNX Runtime), ``trt`` (TensorRT if present, else TensorRT for RTX) or ``trt-rtx``. A
            file has one of its own. A bundle runs in TensorRT with its own engines, or with those that ``darsr infer``
            built into the cache; none is built here. ``auto``: ONNX Runtime where it is installed, else TensorRT where the
            bundle holds engines. Why an engine that is there is not used is a ``RuntimeWarning``.

    Returns:
        An engine: ``run`` takes float32 N x 3 x H x W in [0, 1] and gives N x 3 x sH x sW; ``spec`` is the model's contract.

    Raises:
        DarsrError: no such file, a kind that is not known, a runtime, a GPU or a bundle's engine that is missing, an adapter
            that does not fit, an engine that does not run such a file.
    """
    path = Path(model)
    if engine not in ENGINES:
        raise DarsrError(f"engine {engine}", "is not known", f"choose one of {', '.join(ENGINES)}")
    if path.is_dir():
        opened = _bundled(path, provider, threads, adapter, trust, engine_of_bundle(path, engine))
    elif adapter is not None:
        raise DarsrError(
            str(path), "holds its correction, and an adapter was given", "give a bundle (darsr export --split)"
        )
    elif path.suffix.lower() == ".onnx":
        from .engines.ort import OrtEngine

        if engine not in ("auto", "ort"):
            command = f"darsr export {path} --format {engine}"
            raise DarsrError(str(path), f"is no engine, and none is built here for {engine}", f"build it: {command}")
        opened = OrtEngine(path, provider, threads)
    elif path.suffix.lower() == ".engine":
        from .trt.engine import TrtEngine

        _require_family(path, engine)
        opened = TrtEngine(path, trust)
    else:
        raise another_kind(path, "model", "engine") or DarsrError(
            str(path), "is no model that can be opened", "give a bundle, or a file .onnx or .engine"
        )
    try:
        return TiledEngine(opened, tile)
    except DarsrError:  # it takes no tiles
        opened.__exit__(None, None, None)
        raise


def engine_of_bundle(folder: Path, asked: str = "auto") -> str:
    """What runs a bundle: ``auto`` is ONNX Runtime where it is installed, else the family of the engines that it holds.

    Raises:
        DarsrError: a damaged sidecar of an engine.
    """
    from .engines.ort import installed_runtimes
    from .trt.engine_file import read_facts
    from .trt.open_bundle import own_engines

    if asked != "auto" or installed_runtimes():
        return "ort" if asked == "auto" else asked
    own = own_engines(folder)
    return read_facts(own[0]).family if own else "ort"  # whose error says what to install


def _bundled(folder: Path, provider: str, threads: int, adapter: str | Path | None, trust: bool, engine: str) -> Engine:
    from .bundle.manifest import Manifest
    from .bundle.ort_bundle import Bundle
    from .files.adapter import Adapter

    path = adapter or Manifest.load(folder).own_adapter(folder)
    if path is None:
        raise DarsrError(str(folder), "holds no adapter of its own", "give one")
    if engine != "ort":
        return _in_tensorrt(folder, Path(path), trust, engine)
    bundle = Bundle(folder, provider, threads)
    return bundle.engine(Adapter.load(path), path, hash_file(path))


def _in_tensorrt(folder: Path, adapter: Path, trust: bool, engine: str) -> Engine:
    from .files.folders import engines_folder
    from .trt.cache import EngineCache
    from .trt.library import choose_family, import_library
    from .trt.open_bundle import open_in_tensorrt

    def warn(line: str) -> None:
        warnings.warn(line, RuntimeWarning, stacklevel=2)

    library = import_library(choose_family(engine))
    return open_in_tensorrt(folder, adapter, library, EngineCache(engines_folder(), warn), warn, trust=trust)


def _require_family(path: Path, engine: str) -> None:
    """An engine file is of one family; ``trt`` is whichever of them."""
    from .trt.engine_file import read_facts

    if engine == "ort" or (engine == "trt-rtx" and read_facts(path).family != engine):
        raise DarsrError(str(path), f"is an engine of TensorRT, and {engine} was asked for", "leave the engine out")
