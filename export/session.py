"""From what a user names (an image's adapter, a model file, a backbone) to an engine that runs it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from darsr_deploy.adapter import Adapter
from darsr_deploy.engine import Engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.ort_engine import OrtEngine, installed_runtimes
from darsr_deploy.spec import ModelSpec
from darsr_deploy.torch_engine import TorchEngine

ENGINES = ("auto", "ort", "torch")


@dataclass(frozen=True)
class Source:
    """What is to be run: exactly one of an adapter file, a model file, or a backbone alone at a scale."""

    adapter: Path | None = None
    model: Path | None = None
    backbone: str | None = None
    scale: int | None = None


def cache_folder() -> Path:
    """Where exported models are kept: the user's cache folder, or what DARSR_CACHE names."""
    return Path(os.environ.get("DARSR_CACHE") or platformdirs.user_cache_dir("darsr"))


def open_engine(
    source: Source, engine: str = "auto", provider: str = "cpu", say: Callable[[str], None] = lambda _: None
) -> Engine:
    """Open the engine asked for. ``auto`` is ONNX Runtime where it is installed, else PyTorch.

    An adapter is exported on first use, verified against PyTorch, and kept in the cache.

    Args:
        say: told about work that takes seconds.

    Raises:
        DarsrError: the engine asked for cannot run this; never silently another one.
    """
    if engine not in ENGINES:
        raise DarsrError(f"engine {engine}", "is not known", f"choose one of {', '.join(ENGINES)}")
    if provider not in ("cpu", "cuda"):
        raise DarsrError(f"provider {provider}", "is not known", "choose cpu or cuda")
    if source.model is not None:
        if engine == "torch":
            raise DarsrError(
                str(source.model),
                "a model file runs in ONNX Runtime, not in PyTorch",
                "give --adapter, or leave out --engine torch",
            )
        opened = OrtEngine(source.model, provider)
        if source.scale not in (None, opened.spec.scale):
            raise DarsrError(
                str(source.model),
                f"is a model for scale {opened.spec.scale}, asked for {source.scale}",
                f"use --scale {opened.spec.scale}",
            )
        return opened
    _require_torch(source)
    chosen = engine if engine != "auto" else ("ort" if installed_runtimes() else "torch")
    if chosen == "torch":
        import torch

        if provider == "cuda" and not torch.cuda.is_available():
            raise DarsrError("provider cuda", "PyTorch sees no CUDA device here", "use --provider cpu")
        pipeline, spec = load(source, "cuda" if provider == "cuda" else "cpu")
        return TorchEngine(pipeline, spec, "cuda" if provider == "cuda" else "cpu")
    path = _cached_model(source, say)
    try:
        return OrtEngine(path, provider)
    except DarsrError:
        if provider != "cpu":
            raise
        path.unlink(missing_ok=True)  # a damaged file in the cache is made again, once
        return OrtEngine(_cached_model(source, say), provider)


def load(source: Source, device: str = "cpu"):
    """The pipeline of an adapter or of a backbone alone, and its spec.

    Returns:
        ``(Pipeline, ModelSpec)``.
    """
    from torch import nn

    from darsr_train.backbones import load_backbone
    from darsr_train.pipeline import Pipeline, load_pipeline

    if source.adapter is None:
        backbone = load_backbone(source.backbone or "edge", source.scale, device)
        pipeline = Pipeline(nn.Identity(), backbone.module).eval()
        return pipeline, ModelSpec(backbone.scale, form="none", backbone=backbone.name, backbone_sha256=backbone.sha256)
    pipeline, adapter, backbone = load_pipeline(source.adapter, source.backbone, source.scale, device)
    digest = hashlib.sha256(source.adapter.read_bytes()).hexdigest()
    return pipeline, ModelSpec(
        adapter.scale,
        form=adapter.correction,
        backbone=backbone.name,
        backbone_sha256=backbone.sha256,
        adapter_sha256=digest,
    )


def _require_torch(source: Source) -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        what = str(source.adapter or "the backbone alone")
        if source.adapter is not None:
            Adapter.load(source.adapter)  # a damaged adapter is the more useful thing to say
        raise DarsrError(
            what,
            "needs PyTorch to become a model, and it is not installed",
            "run darsr export where you adapted and give the file with --model",
        ) from error


def require_onnx() -> None:
    """Say in one line what export needs.

    Raises:
        DarsrError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DarsrError(
            "export to ONNX", f"{error.name} is not installed", "install the extra export, or use --engine torch"
        ) from error


def _cached_model(source: Source, say: Callable[[str], None]) -> Path:
    require_onnx()
    pipeline, spec = load(source)
    from .to_onnx import OPSET, export_onnx

    facts = (spec.adapter_sha256, spec.backbone_sha256, spec.scale, spec.precision, OPSET, spec.version)
    key = hashlib.sha256(f"{importlib.metadata.version('darsr')} {facts}".encode()).hexdigest()[:32]
    path = cache_folder() / "models" / f"{key}.onnx"
    if not path.is_file():
        say("exporting the model (once; it is kept in the cache)")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DarsrError(
                str(path.parent),
                f"the cache folder cannot be made ({error.strerror})",
                "set DARSR_CACHE to a folder that can be written",
            ) from error
        export_onnx(pipeline, path, spec)
    return path
