"""The one door from a file to the engine that runs it: a model, an engine or a bundle, in any runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .engines.base import Tileable
from .engines.tiled import TiledEngine
from .errors import DarsrError
from .files.adapter import SUFFIX
from .files.kinds import another_kind

if TYPE_CHECKING:
    from .files.model_spec import ModelSpec
    from .trt.library import Library
    from .trt.open_bundle import Builder

ENGINES = ("auto", "ort", "trt", "trt-rtx")  # that run files
PROVIDERS = ("cpu", "cuda")
Say = Callable[[str], None]


def open_engine(
    path: str | Path,
    adapter: str | Path | None = None,
    *,
    engine: str = "auto",
    provider: str = "cpu",
    trust: bool = False,
    threads: int = 0,
    tile: int | None = None,
    scale: int | None = None,
    precision: str | None = None,
    backbone_alone: bool = False,
    builder: Builder | None = None,
    say: Say | None = None,
) -> TiledEngine:
    """Open an exported model; to be used as a context manager.

    Args:
        path: what ``darsr export`` wrote: a file ``.onnx``, ``.engine``, or a runtime bundle; or an adapter file (``.darsr``) of
            the default backbone, whose bundle comes with the package.
        adapter: an adapter file to run in a bundle; by default the one that it was exported from.
        engine: what runs it: ``ort`` (ONNX Runtime), ``trt`` (TensorRT if present, else TensorRT for RTX) or ``trt-rtx``. An
            engine file has one of its own. A model or a bundle runs in TensorRT with the bundle's own engines, or with those
            of the cache; what is in neither is made by ``builder``. ``auto``: ONNX Runtime where it is installed, else
            TensorRT where the bundle holds engines.
        provider: of ONNX Runtime, ``cpu`` or ``cuda``. The one asked for runs it, or opening fails: never silently another.
        trust: load an engine file, or a bundle's own engines, that were not built on this machine. An engine is code.
        threads: of the CPU; 0 leaves it to the runtime.
        tile: side of the tiles of large images, in LR pixels; None: as the free memory allows, 0: never.
        scale, precision: what the file has to be for; None: whatever it is for.
        backbone_alone: run a bundle without any adapter.
        builder: builds engines that are missing; None: a missing one is an error that names the command.
        say: told what takes time, why an engine that is there is not used, and where memory does not suffice; by default
            a ``RuntimeWarning``.

    Returns:
        An engine: ``run`` takes float32 N x 3 x H x W in [0, 1] and gives N x 3 x sH x sW; ``spec`` is the model's contract.

    Raises:
        DarsrError: no such file, a kind that is not known, a runtime, a GPU or a bundle's engine that is missing, an adapter
            that does not fit, an engine that does not run such a file, another scale or precision than asked for.
    """
    path, say = Path(path), say or _warn
    for what, asked, known in (("engine", engine, ENGINES), ("provider", provider, PROVIDERS)):
        if asked not in known:
            raise DarsrError(f"{what} {asked}", "is not known", f"choose one of {', '.join(known)}")

    if path.suffix.lower() == SUFFIX and path.is_file():
        path, adapter = _shipped_bundle(path, adapter, provider), path

    def check(spec: ModelSpec) -> None:
        for what, asked, own in (("scale", scale, spec.scale), ("precision", precision, spec.precision)):
            if asked not in (None, own):
                raise DarsrError(str(path), f"is a model of {what} {own}, asked for {asked}", f"use --{what} {own}")

    opened: Tileable
    if path.is_dir():
        file = None if backbone_alone else _adapter_of(path, adapter, check)
        runtime = engine_of_bundle(path, engine)
        if runtime == "ort":
            opened = _bundle_in_ort(path, file, provider, threads)
        else:
            opened = _bundle_in_tensorrt(path, file, runtime, trust, builder, say)
    elif path.suffix.lower() not in (".onnx", ".engine"):
        raise another_kind(path, "model", "engine", "bundle") or DarsrError(
            str(path), "is no model that can be opened", "give a bundle, or a file .onnx or .engine"
        )
    elif adapter is not None:
        raise DarsrError(
            str(path), "holds its correction, and an adapter was given", "give a bundle (darsr export --split)"
        )
    elif path.suffix.lower() == ".engine":
        opened = _engine_file(path, engine, trust, check)
    elif engine in ("auto", "ort"):
        from .engines.ort import OrtEngine

        opened = OrtEngine(path, provider, threads)
    else:
        opened = _model_in_tensorrt(path, engine, builder, say, check)
    try:
        check(opened.spec)
        return TiledEngine(opened, tile, say)
    except DarsrError:  # another model than asked for, or one that takes no tiles
        opened.__exit__(None, None, None)
        raise


def _shipped_bundle(path: Path, adapter: str | Path | None, provider: str) -> Path:
    """Return the bundle of the package that runs an adapter file."""
    from .bundle.adapter_inputs import load_adapter
    from .bundle.shipped import bundle_for

    if adapter is not None:
        raise DarsrError(str(path), "is an adapter itself, and another one was given", "leave one of them out")
    if (folder := bundle_for(load_adapter(path)[0], provider=provider)) is None:
        why = "needs a backbone or networks that do not come with this version of the package"
        raise DarsrError(str(path), why, "export a bundle of it (darsr export --split) and open that")
    return folder


def engine_of_bundle(folder: Path, asked: str = "auto") -> str:
    """Return what runs a bundle: for ``auto`` ONNX Runtime where it is installed, else the family of its own engines.

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


def _adapter_of(folder: Path, given: str | Path | None, check: Callable[[ModelSpec], None]) -> Path:
    """Return the adapter given, else the bundle's own."""
    from .bundle.manifest import Manifest

    manifest = Manifest.load(folder)
    check(manifest.spec)
    path = given or manifest.own_adapter(folder)
    if path is None:
        raise DarsrError(str(folder), "holds no adapter of its own", "give one (--adapter)")
    return Path(path)


def _bundle_in_ort(folder: Path, adapter: Path | None, provider: str, threads: int) -> Tileable:
    from .bundle.adapter_inputs import load_adapter
    from .bundle.ort_bundle import open_bundle

    bundle = open_bundle(folder, provider, threads)
    if adapter is None:
        return bundle.engine(None)
    loaded, sha256 = load_adapter(adapter)
    return bundle.engine(loaded, adapter, sha256)


def _bundle_in_tensorrt(
    folder: Path, adapter: Path | None, engine: str, trust: bool, builder: Builder | None, say: Say
) -> Tileable:
    from .files.folders import engines_folder
    from .trt.cache import EngineCache
    from .trt.open_bundle import open_in_tensorrt

    return open_in_tensorrt(
        folder, adapter, _library(engine), EngineCache(engines_folder(), say), say, builder, trust=trust
    )


def _engine_file(path: Path, engine: str, trust: bool, check: Callable[[ModelSpec], None]) -> Tileable:
    from .files.folders import engines_folder
    from .trt.engine import TrtEngine
    from .trt.engine_file import read_facts

    facts = read_facts(path)
    if engine == "ort" or (engine == "trt-rtx" and facts.family != engine):  # trt is whichever of them
        raise DarsrError(str(path), f"is an engine of TensorRT ({facts.family}), and {engine} was asked for",
                         f"use --engine {facts.family}")  # fmt: skip
    check(facts.spec)
    return TrtEngine(path, trust, jit_folder=engines_folder())


def _model_in_tensorrt(
    path: Path, engine: str, builder: Builder | None, say: Say, check: Callable[[ModelSpec], None]
) -> Tileable:
    from .files.folders import engines_folder
    from .files.onnx_bytes import read_spec
    from .trt.cache import EngineCache
    from .trt.engine import open_model

    check(read_spec(path)[1])
    return open_model(path, _library(engine), EngineCache(engines_folder(), say), say, builder)


def _library(engine: str) -> Library:
    from .trt.library import choose_family, import_library

    return import_library(choose_family(engine))


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=3)
