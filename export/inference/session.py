"""From what a user names (an image's adapter, a model file, a backbone) to an engine that runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from darsr_deploy.bundle.manifest import is_bundle
from darsr_deploy.bundle.ort_bundle import Bundle, open_bundle
from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.ort import OrtEngine, installed_runtimes
from darsr_deploy.engines.torch_engine import TorchEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.kinds import another_kind
from darsr_deploy.files.model_spec import PRECISIONS
from darsr_deploy.opening import engine_of_bundle

from ..artefacts.cache import (
    BUNDLE_PRECISIONS,
    Source,
    adapter_in_bundle,
    cached_bundle,
    cached_model,
    load,
    made_bundle,
    refuse_unknown_parts,
    require_torch_for,
)

Progress = Callable[
    [str], contextlib.AbstractContextManager[Callable[[dict], None]]
]  # from a title to what is told of steps
ENGINES = ("auto", "ort", "trt", "trt-rtx", "torch")


@contextlib.contextmanager
def no_progress(title: str) -> Iterator[Callable[[dict], None]]:
    """Show nothing."""
    yield lambda entry: None


def open_engine(
    source: Source,
    engine: str = "auto",
    provider: str = "cpu",
    say: Callable[[str], None] = lambda _: None,
    precision: str | None = None,
    trust: bool = False,
    progress: Progress = no_progress,
) -> Engine:
    """Open the engine asked for. ``auto`` is ONNX Runtime where it is installed, else PyTorch; for an engine file its own;
    for a bundle without ONNX Runtime the family of the engines that it holds.

    An adapter is exported on first use, verified against PyTorch, and kept in the cache.

    Args:
        say: told about work that takes seconds.
        precision: float32 by default; a model file has its own.
        trust: load an engine file that was not built on this machine.
        progress: shows how far the building of an engine is.

    Raises:
        DarsrError: the engine asked for cannot run this; never silently another one.
    """
    if engine not in ENGINES:
        raise DarsrError(f"engine {engine}", "is not known", f"choose one of {', '.join(ENGINES)}")
    if provider not in ("cpu", "cuda"):
        raise DarsrError(f"provider {provider}", "is not known", "choose cpu or cuda")
    check_precision(precision)
    if source.model is not None and (another := another_kind(source.model, "model", "engine", "bundle", "folder")):
        raise another
    if source.model is not None and is_bundle(source.model):
        engine = engine_of_bundle(source.model, engine)
    if engine in ("trt", "trt-rtx") or (source.model is not None and source.model.suffix == ".engine"):
        from .tensorrt import open_trt

        with progress("TensorRT") as report:
            return open_trt(source, engine, say, precision, trust, report)
    if source.model is not None:
        if engine == "torch":
            raise DarsrError(
                str(source.model),
                "a model file runs in ONNX Runtime, not in PyTorch",
                "give --adapter, or leave out --engine torch",
            )
        opened = _open_bundle(source, provider) if is_bundle(source.model) else OrtEngine(source.model, provider)
        if source.scale not in (None, opened.spec.scale):
            raise DarsrError(
                str(source.model),
                f"is a model for scale {opened.spec.scale}, asked for {source.scale}",
                f"use --scale {opened.spec.scale}",
            )
        if precision not in (None, opened.spec.precision):
            raise DarsrError(
                str(source.model),
                f"is a model of precision {opened.spec.precision}, asked for {precision}",
                f"export it with --precision {precision}",
            )
        return opened
    chosen = engine if engine != "auto" else ("ort" if installed_runtimes() else "torch")
    if chosen == "ort" and precision in BUNDLE_PRECISIONS and (found := cached_bundle(source, precision, provider)):
        return _with_adapter(found, source.adapter)
    require_torch_for(source)
    if chosen == "torch":
        import torch

        if precision not in (None, "fp32"):
            raise DarsrError(
                f"precision {precision}", "PyTorch runs the network as it was adapted, in fp32", "use --engine ort"
            )
        if provider == "cuda" and not torch.cuda.is_available():
            raise DarsrError("provider cuda", "PyTorch sees no CUDA device here", "use --provider cpu")
        pipeline, spec = load(source, "cuda" if provider == "cuda" else "cpu")
        return TorchEngine(pipeline, spec, "cuda" if provider == "cuda" else "cpu")
    if precision == "bf16" and provider == "cpu":  # said before the seconds that an export takes
        raise DarsrError(
            "precision bf16", "ONNX Runtime has no bfloat16 arithmetic on a CPU", "use --precision fp32, fp16 or int8"
        )
    if precision in BUNDLE_PRECISIONS:
        return _with_adapter(made_bundle(source, say, precision or "fp32", provider), source.adapter)
    path = cached_model(source, say, precision or "fp32")
    try:
        return OrtEngine(path, provider)
    except DarsrError:
        if provider != "cpu":
            raise
        path.unlink(missing_ok=True)  # a damaged file in the cache is made again, once
        return OrtEngine(cached_model(source, say, precision or "fp32"), provider)


def _open_bundle(source: Source, provider: str) -> Engine:
    """A bundle with the adapter given, or the one that it was exported from."""
    opened = open_bundle(source.model, provider)
    return _with_adapter(opened, adapter_in_bundle(source, opened.own_adapter()))


def _with_adapter(opened: Bundle, path: Path | None) -> Engine:
    if path is None:
        return opened.engine(None)
    adapter = Adapter.load(path)
    refuse_unknown_parts(adapter, path)
    return opened.engine(adapter, path, hash_file(path))


def check_precision(precision: str | None) -> None:
    """Refuse what is no precision.

    Raises:
        DarsrError: not one of :data:`PRECISIONS`.
    """
    if precision not in (None, *PRECISIONS):
        raise DarsrError(f"precision {precision}", "is not known", f"choose one of {', '.join(PRECISIONS)}")
