"""What was exported once is kept in the cache: from an adapter or a backbone to a file that computes it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.bundle.manifest import VERSION as BUNDLE_VERSION
from darsr_deploy.bundle.ort_bundle import Bundle, open_bundle
from darsr_deploy.bundle.weights import kernel_side, widths_of
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.folders import cache_folder
from darsr_deploy.files.hashing import hash_bytes, hash_file
from darsr_deploy.files.model_spec import VERSION as SPEC_VERSION
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.install import install

from ..onnx_graphs.opset import OPSET

BUNDLE_PRECISIONS = (None, "fp32", "fp16")  # None is fp32


@dataclass(frozen=True)
class Source:
    """What is to be run: an adapter file, a model file, or a backbone alone at a scale; a bundle runs with an adapter."""

    adapter: Path | None = None
    model: Path | None = None
    backbone: str | None = None
    scale: int | None = None


def adapter_in_bundle(source: Source, own: Path | None) -> Path:
    """The adapter that was given, else the bundle's own; one that this version can run.

    Raises:
        DarsrError: there is neither, or it has parts that are not known.
    """
    path = source.adapter or own
    if path is None:
        raise DarsrError(str(source.model), "holds no adapter of its own", "give --adapter")
    refuse_unknown_parts(Adapter.load(path), path)
    return path


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
    refuse_unknown_parts(adapter, source.adapter)
    digest = hash_file(source.adapter)
    return pipeline, ModelSpec(
        adapter.scale,
        form=adapter.correction,
        backbone=backbone.name,
        backbone_sha256=backbone.sha256,
        adapter_sha256=digest,
    )


def require_torch_for(source: Source) -> None:
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
            "export to ONNX", f"{error.name} is not installed", f"{install('export')}, or use --engine torch"
        ) from error


def refuse_unknown_parts(adapter: Adapter, path: Path) -> None:
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
    return cached_model(source, say, precision, form)


def cached_bundle(source: Source, precision: str | None, provider: str) -> Bundle | None:
    """The cached bundle that runs an adapter, found without PyTorch; None where there is none yet.

    None too where there is more to check than the adapter's file says.
    """
    if source.adapter is None or source.backbone is not None:
        return None
    adapter = Adapter.load(source.adapter)
    folder = _bundle_folder(adapter, precision or "fp32")
    if source.scale not in (None, adapter.scale) or not folder.is_dir():
        return None
    try:
        return open_bundle(folder, provider)
    except DarsrError:  # damaged: it is made again
        return None


def cached_bundle_folder(source: Source, say: Callable[[str], None], precision: str | None) -> Path:
    """Where the cached bundle lies that runs an adapter or the backbone alone; made where there is none.

    Raises:
        DarsrError: it cannot be made, or does not compute what PyTorch computes.
    """
    found = cached_bundle(source, precision, "cpu")
    if found is None:
        require_torch_for(source)
        found = made_bundle(source, say, precision or "fp32", "cpu")
    if source.adapter is not None:
        refuse_unknown_parts(Adapter.load(source.adapter), source.adapter)
    return found.folder


def made_bundle(source: Source, say: Callable[[str], None], precision: str, provider: str) -> Bundle:
    """The cached bundle of an adapter's backbone and architecture, made where there is none.

    Any adapter of them runs in it, so it is exported once and not for every image.
    """
    require_onnx()
    pipeline, spec = load(source)
    from ..samples import gather
    from .bundle import export_bundle

    alone = Adapter("none", spec.scale, spec.backbone, spec.backbone_sha256)
    adapter = alone if source.adapter is None else Adapter.load(source.adapter)
    folder = _bundle_folder(adapter, precision)
    try:
        return open_bundle(folder, provider)
    except DarsrError:  # none, or damaged
        say(f"exporting the backbone in {precision} (once; it is kept in the cache)")
        _make_cache(folder.parent)
        export_bundle(pipeline, adapter, folder, spec.extended(precision=precision), None, gather(source.adapter))
    return open_bundle(folder, provider)


def _bundle_folder(adapter: Adapter, precision: str) -> Path:
    """Where the bundle is cached that runs an adapter: what it depends on is in the name."""
    facts = (adapter.backbone_sha256, adapter.scale, precision, widths_of(adapter), kernel_side(adapter))
    facts += (OPSET, BUNDLE_VERSION, SPEC_VERSION)
    key = hash_bytes(f"{importlib.metadata.version('darsr')} {facts}".encode())[:32]
    return cache_folder() / "bundles" / key


def _make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarsrError(
            str(folder),
            f"the cache folder cannot be made ({error.strerror})",
            "set DARSR_CACHE to a folder that can be written",
        ) from error


def cached_model(source: Source, say: Callable[[str], None], precision: str, form: str | None = None) -> Path:
    require_onnx()
    pipeline, spec = load(source)
    from ..samples import gather
    from .model import export_onnx

    spec, samples = spec.extended(precision=precision), gather(source.adapter)
    of_photo = form in ("filters", "global") and form != spec.form
    spec = spec.extended(form=form or spec.form)
    facts = (spec.adapter_sha256, spec.backbone_sha256, spec.scale, spec.precision, OPSET, spec.version)
    # the ranges of an int8 model depend on whether the adapted image was at hand
    facts += (samples.photo_sha256,) if precision == "int8" or of_photo else ()
    facts += (spec.form,) if of_photo else ()
    key = hash_bytes(f"{importlib.metadata.version('darsr')} {facts}".encode())[:32]
    path = cache_folder() / "models" / f"{key}.onnx"
    if not path.is_file():
        with_ranges = f", calibrated on {samples.origin}" if precision == "int8" else ""
        say(f"exporting the model in {precision}{with_ranges} (once; it is kept in the cache)")
        _make_cache(path.parent)
        export_onnx(pipeline, path, spec, samples=samples)
    return path
