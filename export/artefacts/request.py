"""Carry out an export request: a model file, an engine, or a bundle with or without engines."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.bundle.manifest import MANIFEST, Manifest, is_bundle
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.model_spec import FLOORS_DB, PRECISIONS, ModelSpec, coefficients_path
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.files.places import Targets
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine_file import SUFFIX, EngineFacts, sidecar_path
from darsr_deploy.trt.library import FAMILIES, Library, check_targets, import_library
from darsr_deploy.trt.shapes import DEFAULT_SHAPES, parse_shapes

from . import triton_repository
from .build_engine import BuildOptions, Progress, no_progress
from .bundle_engines import add_engines, engines_row, export_engines, require_replaceable
from .engine import Comparison, build_file, compare_with_torch
from .subject import Source, Subject, require_onnx

FORMATS = ("onnx", *FAMILIES)
log = logging.getLogger("darsr")


@dataclass(frozen=True)
class ExportRequest:
    """The options of ``darsr export``, checked against each other.

    Raises:
        DarsrError: an option that is not known, or two that do not go together.
    """

    source: Path  # an adapter; for engines also a model file or a bundle
    out: Path | None = None  # by default beside the source
    precision: str = "fp32"
    form: str | None = None
    backbone: str | None = None
    image: Path | None = None
    calibration: Path | None = None
    floor_db: float | None = None
    split: bool = False
    format: str = "onnx"  # onnx | trt | trt-rtx
    shape: str | None = None  # HxW
    shapes: str | None = None  # MIN,OPT,MAX
    target: str | None = None  # sm_86,sm_89
    workspace: int = 0  # MB
    keep_function: bool = False
    triton: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for what, known in (("precision", PRECISIONS), ("format", FORMATS)):
            if (value := getattr(self, what)) not in known:
                raise DarsrError(f"{what} {value}", "is not known", f"choose one of {', '.join(known)}")
        given = [name for name in ("shape", "shapes", "target", "workspace") if getattr(self, name)]
        if self.format == "onnx" and given:
            raise DarsrError(
                f"--{given[0]}", "is for engines: an ONNX file takes every size", "add --format trt or trt-rtx"
            )
        if self.keep_function and (self.format != "onnx" or self.split):
            raise DarsrError("--keep-function", "is for a single ONNX file", "leave it out")
        if self.triton is not None and (self.is_bundle or self.form == "filters"):
            why = "a bundle runs one adapter after another" if self.is_bundle else "form filters belongs to one image"
            raise DarsrError("--triton", why, "serve the form network or global")
        if self.calibration is not None and self.is_bundle:
            raise DarsrError(
                "--calibration", "is for int8, and bundles are fp32 or fp16", "leave it out, or leave out --split"
            )
        self._check_suffix()

    def _check_suffix(self) -> None:
        """Refuse a name by which infer would take the result for something else."""
        out, suffixes = self.out, (".onnx", SUFFIX)
        if out is None:
            return
        if self.is_bundle:
            if out.suffix.lower() in suffixes:
                raise DarsrError(
                    str(out), "is a file's name, and a bundle is a folder", f"use -o {out.with_suffix('.bundle')}"
                )
            return
        right, kind = (".onnx", "a model") if self.format == "onnx" else (SUFFIX, "an engine")
        if out.suffix != right and not out.is_dir():
            other = "--format trt or trt-rtx for an engine" if self.format == "onnx" else "--format onnx for a model"
            why = f"does not end in {right}, by which infer knows {kind}"
            raise DarsrError(str(out), why, f"use -o {out.with_suffix(right)}, or {other}")

    @property
    def is_bundle(self) -> bool:
        """Return whether a bundle is written: a new one (--split), or an existing one that gains engines."""
        return self.split or (is_bundle(self.source) and self.format != "onnx")

    @property
    def is_exported(self) -> bool:
        """Return whether the source is already exported: building its engines needs neither PyTorch nor onnx."""
        if self.format == "onnx":
            return False
        return is_bundle(self.source) or (self.source.suffix == ".onnx" and not self.split)


def run_export(request: ExportRequest, progress: Progress = no_progress) -> dict:
    """Write the files asked for, checked against PyTorch, whole or not at all.

    Returns:
        What ``--json`` prints: ``{model, format, precision, form, bytes, sha256, parity_psnr_db, ...}``; of engines also
        ``tensorrt, shapes, targets, gpu, device_parity_psnr_db, layers``.

    Raises:
        DarsrError: a library, PyTorch or onnx is missing; a place cannot be written; or the result differs from PyTorch.
    """
    row = _Export(request, progress).run()
    if request.triton is not None:
        published = triton_repository.publish(Path(row["model"]), request.triton, request.overwrite)
        row["triton"] = str(published)
    return row


class _Export:
    """One export: the request, its subject, and the outputs that it has claimed."""

    def __init__(self, request: ExportRequest, progress: Progress) -> None:
        self.request, self.progress = request, progress
        self.targets = Targets(request.overwrite, [request.source, request.image, request.backbone])
        named = Source(adapter=request.source, backbone=request.backbone)
        self.subject = Subject(named, image=request.image, calibration=request.calibration)

    def run(self) -> dict:
        """Export what the request names; returns the row that ``--json`` prints."""
        request = self.request
        if not request.is_exported:
            from darsr_train.runtime import require_torch

            self.subject.adapter  # noqa: B018  a damaged adapter is said first
            require_torch()
            require_onnx()
        if request.format != "onnx":
            self.library, self.options = _prepare(request)
        if request.is_bundle:
            return self._engines_of_bundle() if request.is_exported else self._bundle()
        return self._engine_of_file() if request.is_exported else self._model()

    def _claim(self, target: Path) -> Path:
        """Reserve an output before the work for it begins."""
        request = self.request
        if request.triton is not None:
            triton_repository.check_free(target, request.triton, request.overwrite)
        return self.targets.claim(target, folder=request.is_bundle)

    def _claim_file(self, stem: str, form: str) -> Path:
        request, engine = self.request, self.request.format != "onnx"
        name = stem + (SUFFIX if engine else ".onnx")
        out = request.out or request.source.with_name(name)
        target = out / name if out.is_dir() else out
        if engine:
            self._claim(sidecar_path(target))
        self._claim(target)
        beside = coefficients_path(target)
        if form == "filters" and not (request.is_exported and beside == coefficients_path(request.source)):
            self._claim(beside)
        return target

    def _model(self) -> dict:
        """Export an adapter to ``photo.onnx``, ``photo_fp16.onnx``, ``photo_global_int8.onnx``; to an engine through that."""
        from ..folding.forms import choose_form
        from .model import export_onnx

        request, subject, own = self.request, self.subject, self.subject.spec.form
        spec = subject.spec.extended(
            form=choose_form(own, request.form, str(request.source)), precision=request.precision
        )
        tail = "".join(f"_{part}" for part, usual in ((spec.form, own), (spec.precision, "fp32")) if part != usual)
        stem = f"{request.source.stem}{tail}"
        target = self._claim_file(stem, spec.form)
        if spec.precision == "int8" and not subject.samples.calibration:
            why = "the adapted image does not lie beside the adapter"
            log.info("%s: calibrating on synthetic pictures (--image, --calibration)", why)
        with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
            onnx = target if request.format == "onnx" else Path(folder) / f"{stem}.onnx"
            facts = export_onnx(
                subject.pipeline, onnx, spec, request.floor_db, subject.samples, keep_function=request.keep_function
            )
            _say_loss(facts, target)
            row = {"model": facts.pop("model"), "format": "onnx", **facts}
            if request.format == "onnx":
                return row
            comparison = compare_with_torch(subject, spec.form, request.floor_db)
            row |= self._build(onnx, target, comparison)
        return row | ({"coefficients": str(coefficients_path(target))} if spec.form == "filters" else {})

    def _engine_of_file(self) -> dict:
        """Build the engine of a model file, from which nothing has to be exported."""
        request, spec = self.request, read_spec(self.request.source)[1]
        row = _own_facts(request, spec)
        target = self._claim_file(request.source.stem, spec.form)
        return row | self._build(request.source, target, Comparison(floor_db=request.floor_db))

    def _build(self, onnx: Path, target: Path, comparison: Comparison) -> dict:
        with self.progress("TensorRT") as report:
            facts = build_file(onnx, target, self.library, self.options, comparison, report=report)
        row = {"model": str(target), "format": self.request.format, "bytes": facts.bytes, "sha256": facts.sha256}
        row |= {"tensorrt": facts.tensorrt, "shapes": str(facts.shapes), "targets": list(facts.targets)}
        parity = facts.device_parity_psnr_db
        return row | {"gpu": facts.gpu, "device_parity_psnr_db": parity, "layers": facts.layers}

    def _bundle(self) -> dict:
        """Export an adapter to ``photo.bundle`` or ``photo_fp16.bundle``, with engines where they are asked for."""
        from .bundle import export_bundle

        request, subject = self.request, self.subject
        if request.form is not None:
            why = "a bundle runs every adapter in its own form"
            raise DarsrError(f"--form {request.form}", why, "leave out --form or --split")
        spec = subject.spec.extended(precision=request.precision)
        tail = "" if spec.precision == "fp32" else f"_{spec.precision}"
        target = request.out or request.source.with_name(f"{request.source.stem}{tail}.bundle")
        require_replaceable(target)
        self._claim(target)
        engines: dict[str, EngineFacts] = {}

        def add(folder: Path, target: Path) -> None:
            how = {"floor_db": request.floor_db}
            with self.progress("TensorRT") as report:
                engines.update(add_engines(folder, self.library, self.options, target, report=report, **how))

        options = {"floor_db": request.floor_db, "samples": subject.samples, "own": request.source}
        options |= {} if request.format == "onnx" else {"also": add}
        facts = export_bundle(subject.pipeline, subject.adapter, target, spec, **options)
        _say_loss(facts, target)
        row = {"model": facts.pop("model"), "format": "bundle", **facts}
        return row | (engines_row(request.format, engines) if engines else {})

    def _engines_of_bundle(self) -> dict:
        """Build engines into an existing bundle, or into a copy of it."""
        request, out = self.request, self.request.out
        row = _own_facts(request, Manifest.load(request.source).spec)
        with self.progress("TensorRT") as report:
            options = {"report": report, "floor_db": request.floor_db}
            target, engines = export_engines(request.source, out, self.library, self.options, self._claim, **options)
        row |= {"bytes": sum(path.stat().st_size for path in target.iterdir())}
        row |= {"sha256": hash_file(target / MANIFEST)}
        return {"model": str(target)} | row | engines_row(request.format, engines)


def _prepare(request: ExportRequest) -> tuple[Library, BuildOptions]:
    """Check sizes, library, targets and GPU before the seconds that an export takes."""
    shapes = parse_shapes(request.shape, request.shapes)
    library = import_library(FAMILIES[request.format])
    targets = tuple(dict.fromkeys(t.strip() for t in (request.target or "").split(",") if t.strip()))
    check_targets(library, targets)
    if request.format == "trt":
        with Device():
            pass
    if request.form == "filters" and shapes is not None and not request.is_bundle:
        raise DarsrError("--shape", "form filters has the size of its image", "leave it out, or use --form network")
    return library, BuildOptions(shapes or DEFAULT_SHAPES, targets, request.workspace)


def _own_facts(request: ExportRequest, spec: ModelSpec) -> dict:
    """Return the facts of an exported file; refuse options that would change them."""
    wrong = [name for name in ("form", "backbone", "image", "calibration") if getattr(request, name) is not None]
    wrong += ["precision"] * (request.precision not in ("fp32", spec.precision))
    if wrong:
        raise DarsrError(str(request.source), f"has its own {wrong[0]}", f"leave out --{wrong[0]}, or give the adapter")
    row = {"precision": spec.precision, "form": spec.form, "parity_psnr_db": spec.parity_psnr_db}
    row |= {"parity_floor_db": FLOORS_DB[spec.precision], "macs_per_lr_pixel": spec.macs_per_lr_pixel}
    return row | {"psnr_from_network_db": spec.psnr_from_network_db}


def _say_loss(facts: dict, target: Path) -> None:
    from .parity import expected_loss_db

    parity = facts["parity_psnr_db"]
    if parity < FLOORS_DB[facts["precision"]]:
        loss = expected_loss_db(parity)
        log.info("%s: %.1f dB from PyTorch; expect to lose about %.2f dB of quality", target, parity, loss)
