"""Open the engine of what a user names: an adapter, a model file, or a backbone."""

from __future__ import annotations

import logging
from pathlib import Path

import darsr_deploy
from darsr_deploy.bundle.adapter_inputs import load_adapter
from darsr_deploy.bundle.shipped import bundle_for, is_default
from darsr_deploy.engines.ort import installed_runtimes
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.engines.torch_engine import TorchEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import SUFFIX
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.kinds import another_kind
from darsr_deploy.files.model_spec import PRECISIONS
from darsr_deploy.opening import ENGINES as FILE_ENGINES
from darsr_deploy.opening import PROVIDERS
from darsr_deploy.trt.library import FAMILIES, choose_family, import_library, require_gpu
from darsr_train.backbones.store import locate

from ..artefacts.build_engine import CannotBuild, Progress, no_progress
from ..artefacts.builder import Builder
from ..artefacts.cache import resolve, resolve_model
from ..artefacts.engine import compare_with_torch
from ..artefacts.subject import Source, Subject

ENGINES = (*FILE_ENGINES, "torch")
log = logging.getLogger("darsr")


def open_engine(
    source: Source,
    engine: str = "auto",
    provider: str = "cpu",
    *,
    precision: str | None = None,
    tile: int | None = 0,
    threads: int = 0,
    trust: bool = False,
    progress: Progress = no_progress,
) -> TiledEngine:
    """Open the engine asked for; ``auto`` is ONNX Runtime if installed, else PyTorch.

    For a file ``auto`` is as :func:`darsr_deploy.open_engine` has it. An adapter of the default backbone runs in a bundle that
    comes with the package; another one is exported on first use, verified against PyTorch, and kept in the cache. What
    TensorRT needs is built on first use too.

    Args:
        precision: float32 by default; a model file has its own.
        tile, threads, trust: as of :func:`darsr_deploy.open_engine`.
        progress: shows how far the building of an engine is.

    Raises:
        DarsrError: the engine asked for cannot run this; never silently another one.
    """
    _check_names(engine, provider, precision if source.model is None else None)
    options = {"provider": provider, "threads": threads, "tile": tile, "trust": trust, "say": log.info}
    if source.model is not None:
        if source.model.suffix.lower() == SUFFIX and (wrong := another_kind(source.model, "model", "engine", "bundle")):
            raise wrong
        if engine == "torch":
            why = "a model file runs in ONNX Runtime, not in PyTorch"
            raise DarsrError(str(source.model), why, "give --adapter, or leave out --engine torch")
        options |= {"engine": engine, "scale": source.scale, "precision": precision}
        return darsr_deploy.open_engine(source.model, source.adapter, builder=Builder(progress=progress), **options)
    if engine == "torch" or (engine == "auto" and not installed_runtimes()):
        return _open_torch(source, provider, precision, tile, threads)
    engine = "ort" if engine == "auto" else engine
    if engine == "ort" and precision == "bf16" and provider == "cpu":  # said before the seconds that an export takes
        raise DarsrError(
            "precision bf16", "ONNX Runtime has no bfloat16 arithmetic on a CPU", "use --precision fp32, fp16 or int8"
        )
    require_runtime(engine, provider)  # so is a library or a GPU that is missing
    subject, options = Subject(source), {**options, "engine": engine}
    file = _shipped_bundle(source, precision, provider) or resolve(subject, precision, provider)
    if file.is_dir():
        own = {"backbone_alone": source.adapter is None, "builder": Builder(progress=progress)}
        try:
            return darsr_deploy.open_engine(file, source.adapter, **own, **options)
        except CannotBuild as error:  # such as weights that are inputs, which an older version may not know
            log.info("%s: going on with an engine for this adapter alone", error.args[1])
            file = resolve_model(subject, precision or "fp32")
    builder = Builder(compare_with_torch(subject), progress) if engine != "ort" else None
    return darsr_deploy.open_engine(file, builder=builder, **options)


def needs_gpu(engine: str, provider: str) -> bool:
    """Return whether an engine runs on a GPU."""
    return provider == "cuda" or engine in FAMILIES


def require_runtime(engine: str, provider: str, here: bool = True) -> None:
    """Check what can be known of a runtime before the work that leads to it.

    Args:
        here: whether this machine is to run it.

    Raises:
        DarsrError: an engine or a provider that is not known, a library or a GPU that is missing.
    """
    _check_names(engine, provider)
    if engine in FAMILIES and here:
        require_gpu(import_library(choose_family(engine)))


def _check_names(engine: str, provider: str, precision: str | None = None) -> None:
    facts = (
        ("engine", engine, ENGINES),
        ("precision", precision or "fp32", PRECISIONS),
        ("provider", provider, PROVIDERS),
    )
    for what, asked, known in facts:
        if asked not in known:
            raise DarsrError(f"{what} {asked}", "is not known", f"choose one of {', '.join(known)}")


def _shipped_bundle(source: Source, precision: str | None, provider: str) -> Path | None:
    """Return the bundle that comes with the package, if it runs the source: neither PyTorch nor onnx is needed then."""
    if precision not in (None, "fp32"):
        return None
    adapter = None if source.adapter is None else load_adapter(source.adapter)[0]
    scale = source.scale or (2 if adapter is None else adapter.scale)
    if adapter is not None and scale != adapter.scale:
        return None
    named = adapter is None or source.backbone is not None
    if named and not is_default(hash_file(locate(source.backbone or "edge", scale)), scale):
        return None
    return bundle_for(adapter, scale, provider)


def _open_torch(source: Source, provider: str, precision: str | None, tile: int | None, threads: int) -> TiledEngine:
    if precision not in (None, "fp32"):
        raise DarsrError(
            f"precision {precision}", "PyTorch runs the network as it was adapted, in fp32", "use --engine ort"
        )
    subject = Subject(source, provider)
    subject.require_torch()
    import torch

    if provider == "cuda" and not torch.cuda.is_available():
        raise DarsrError("provider cuda", "PyTorch sees no CUDA device here", "use --provider cpu")
    if threads:
        torch.set_num_threads(threads)
    return TiledEngine(TorchEngine(subject.pipeline, subject.spec, provider), tile, log.info)
