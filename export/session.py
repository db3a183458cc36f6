"""From what a user names (an image's adapter, a model file, a backbone) to an engine that runs it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.adapter import Adapter
from darsr_deploy.engine import Engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.folders import cache_folder
from darsr_deploy.ort_engine import OrtEngine, installed_runtimes
from darsr_deploy.spec import ModelSpec
from darsr_deploy.torch_engine import TorchEngine

ENGINES = ("auto", "ort", "torch")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Source:
    """What is to be run: exactly one of an adapter file, a model file, or a backbone alone at a scale."""

    adapter: Path | None = None
    model: Path | None = None
    backbone: str | None = None
    scale: int | None = None


def open_engine(
    source: Source,
    engine: str = "auto",
    provider: str = "cpu",
    say: Callable[[str], None] = lambda _: None,
    precision: str | None = None,
) -> Engine:
    """Open the engine asked for. ``auto`` is ONNX Runtime where it is installed, else PyTorch.

    An adapter is exported on first use, verified against PyTorch, and kept in the cache.

    Args:
        say: told about work that takes seconds.
        precision: float32 by default; a model file has its own.

    Raises:
        DarsrError: the engine asked for cannot run this; never silently another one.
    """
    if engine not in ENGINES:
        raise DarsrError(f"engine {engine}", "is not known", f"choose one of {', '.join(ENGINES)}")
    if provider not in ("cpu", "cuda"):
        raise DarsrError(f"provider {provider}", "is not known", "choose cpu or cuda")
    check_precision(precision)
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
        if precision not in (None, opened.spec.precision):
            raise DarsrError(
                str(source.model),
                f"is a model of precision {opened.spec.precision}, asked for {precision}",
                f"export it with --precision {precision}",
            )
        return opened
    _require_torch(source)
    chosen = engine if engine != "auto" else ("ort" if installed_runtimes() else "torch")
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
    path = _cached_model(source, say, precision or "fp32")
    try:
        return OrtEngine(path, provider)
    except DarsrError:
        if provider != "cpu":
            raise
        path.unlink(missing_ok=True)  # a damaged file in the cache is made again, once
        return OrtEngine(_cached_model(source, say, precision or "fp32"), provider)


def check_precision(precision: str | None) -> None:
    """Refuse what is no precision.

    Raises:
        DarsrError: not one of :data:`PRECISIONS`.
    """
    if precision not in (None, *PRECISIONS):
        raise DarsrError(f"precision {precision}", "is not known", f"choose one of {', '.join(PRECISIONS)}")


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
    _refuse_unknown_parts(adapter, source.adapter)
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


def _refuse_unknown_parts(adapter: Adapter, path: Path) -> None:
    """An adapter may name a step that this version cannot put into a model: leaving it out would give another picture."""
    known = {"taps", "kernel", *(f"darm.{name}" for name in adapter.darm_arrays())}
    parts = sorted(adapter.arrays.keys() - known) + ["backprojection"] * bool(adapter.facts.get("backprojection"))
    if parts:
        raise DarsrError(
            str(path),
            f"its correction ({adapter.correction}) has a part, {parts[0]}, that cannot be exported or run by this version",
            "install a newer version, or adapt again without it",
        )


def exported_model(source: Source, precision: str, form: str | None, say: Callable[[str], None]) -> Path:
    """The ONNX file of an adapter or a backbone, from the cache or made now.

    Args:
        form: the adapter's own by default; others are made from the adapted image, which must lie beside the adapter.
        say: told when it has to be made.

    Raises:
        DarsrError: it cannot be made, or does not compute what PyTorch computes.
    """
    return _cached_model(source, say, precision, form)


def _cached_model(source: Source, say: Callable[[str], None], precision: str, form: str | None = None) -> Path:
    require_onnx()
    pipeline, spec = load(source)
    from .samples import gather
    from .to_onnx import OPSET, export_onnx

    spec, samples = spec.extended(precision=precision), gather(source.adapter)
    of_photo = form in ("filters", "global") and form != spec.form
    spec = spec.extended(form=form or spec.form)
    facts = (spec.adapter_sha256, spec.backbone_sha256, spec.scale, spec.precision, OPSET, spec.version)
    # the ranges of an int8 model depend on whether the adapted image was at hand
    facts += (samples.photo_sha256,) if precision == "int8" or of_photo else ()
    facts += (spec.form,) if of_photo else ()
    key = hashlib.sha256(f"{importlib.metadata.version('darsr')} {facts}".encode()).hexdigest()[:32]
    path = cache_folder() / "models" / f"{key}.onnx"
    if not path.is_file():
        with_ranges = f", calibrated on {samples.origin}" if precision == "int8" else ""
        say(f"exporting the model in {precision}{with_ranges} (once; it is kept in the cache)")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DarsrError(
                str(path.parent),
                f"the cache folder cannot be made ({error.strerror})",
                "set DARSR_CACHE to a folder that can be written",
            ) from error
        export_onnx(pipeline, path, spec, samples=samples)
    return path
