"""Resolve an adapter or a backbone to an exported file: from the cache, or exported now."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path

from darsr_deploy.bundle.manifest import VERSION as BUNDLE_VERSION
from darsr_deploy.bundle.ort_bundle import open_bundle
from darsr_deploy.bundle.weights import kernel_side, widths_of
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.folders import cache_folder, make_cache_folder
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import VERSION as SPEC_VERSION
from darsr_deploy.files.onnx_bytes import KEY, check_seal

from ..onnx_graphs.opset import OPSET
from .subject import Subject, require_onnx

BUNDLE_PRECISIONS = (None, "fp32", "fp16")  # None is fp32
log = logging.getLogger("darsr")


def resolve(subject: Subject, precision: str | None = None, provider: str = "cpu") -> Path:
    """Return the file that runs a subject: from the cache, or exported now.

    In fp32 and fp16 it is a bundle, which runs every adapter of its architecture; in int8 and bf16 a model of its own.

    Args:
        provider: for which the bundle is opened to check it, and stays open.

    Raises:
        DarsrError: it cannot be made, or does not compute what PyTorch computes.
    """
    if precision not in BUNDLE_PRECISIONS:
        return resolve_model(subject, precision)
    if subject.needs_backbone():
        subject.pipeline  # noqa: B018  raises where the backbone is not the adapter's
    folder = _bundle_folder(subject, precision or "fp32")
    try:
        open_bundle(folder, provider)
    except DarsrError:  # none, or a damaged one
        spec = subject.spec.extended(precision=precision or "fp32")
        require_onnx()
        from .bundle import export_bundle

        log.info("exporting the backbone in %s (once; it is kept in the cache)", spec.precision)
        make_cache_folder(folder.parent)
        export_bundle(subject.pipeline, subject.adapter, folder, spec, samples=subject.samples)
    return folder


def resolve_model(subject: Subject, precision: str, form: str | None = None) -> Path:
    """Return the ONNX file of a subject: from the cache, or exported now.

    Args:
        form: the subject's own by default; others are made from the adapted image, which must be available.

    Raises:
        DarsrError: it cannot be made, or does not compute what PyTorch computes.
    """
    path, spec = cached_model_path(subject, precision, form), subject.spec
    if not _is_intact(path):
        require_onnx()
        from .model import export_onnx

        ranges = f", calibrated on {subject.samples.origin}" if precision == "int8" else ""
        what = "the model" if form is None else f"form {form}"
        log.info("exporting %s in %s%s (once; it is kept in the cache)", what, precision, ranges)
        make_cache_folder(path.parent)
        wanted = spec.extended(precision=precision, form=form or spec.form)
        export_onnx(subject.pipeline, path, wanted, samples=subject.samples)
    return path


def cached_model_path(subject: Subject, precision: str, form: str | None = None) -> Path:
    """Return where the ONNX file of a subject is cached; all that it depends on is in the name."""
    spec, of_photo = subject.spec, form in ("filters", "global") and form != subject.spec.form
    facts = (spec.adapter_sha256, spec.backbone_sha256, spec.scale, precision, OPSET, SPEC_VERSION)
    # the ranges of an int8 model depend on whether the adapted image was available
    facts += (subject.samples.photo_sha256,) if precision == "int8" or of_photo else ()
    facts += (form,) if of_photo else ()
    return cache_folder() / "models" / f"{_key(facts)}.onnx"


def _bundle_folder(subject: Subject, precision: str) -> Path:
    adapter = subject.adapter
    facts = (adapter.backbone_sha256, adapter.scale, precision, widths_of(adapter), kernel_side(adapter))
    facts += (adapter.modulation_sha256,) if adapter.modulation_sha256 else ()
    return cache_folder() / "bundles" / _key((*facts, OPSET, BUNDLE_VERSION, SPEC_VERSION))


def _key(facts: tuple) -> str:
    facts = (*facts, "inlined")  # files of earlier versions hold the correction filter as a local function
    return hash_bytes(f"{importlib.metadata.version('darsr')} {facts}".encode())[:32]


def _is_intact(path: Path) -> bool:
    try:
        data = path.read_bytes()
        check_seal(path, data)
    except (OSError, DarsrError):
        return False
    return KEY in data  # without its end it has no seal either
