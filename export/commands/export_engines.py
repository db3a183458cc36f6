"""What ``darsr export --format trt`` and ``trt-rtx`` do, behind their options."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.bundle.manifest import MANIFEST, Manifest, is_bundle
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.model_spec import FLOORS_DB, ModelSpec, coefficients_path
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine_file import SUFFIX, EngineFacts, sidecar_path
from darsr_deploy.trt.library import FAMILIES, Library, check_targets, import_library
from darsr_deploy.trt.parity import Reference
from darsr_deploy.trt.shapes import DEFAULT_SHAPES, parse_shapes

from ..artefacts.build_engine import BuildOptions, Report
from ..artefacts.bundle_engines import add_engines, engines_row, export_engines
from ..artefacts.engine import build_file

FORMATS = ("onnx", *FAMILIES)


@dataclass(frozen=True)
class EngineOptions:
    """Options of ``darsr export`` that are for engines.

    Raises:
        DarsrError: an unknown format, or one of the others where an ONNX file is written.
    """

    format: str = "onnx"  # onnx | trt | trt-rtx
    shape: str | None = None  # HxW
    shapes: str | None = None  # MIN,OPT,MAX
    target: str | None = None  # sm_86,sm_89
    workspace: int = 0  # MB

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DarsrError(f"format {self.format}", "is not known", f"choose one of {', '.join(FORMATS)}")
        given = [name for name in ("shape", "shapes", "target", "workspace") if getattr(self, name)]
        if self.format == "onnx" and given:
            raise DarsrError(
                f"--{given[0]}", "is for engines: an ONNX file takes every size", "add --format trt or trt-rtx"
            )


def export_engine(
    source: Path,
    out: Path | None,
    precision: str,
    form: str | None,
    backbone: str | None,
    image: Path | None,
    calibration: Path | None,
    floor: float | None,
    claim: Callable[[Path], Path],
    say: Callable[[str], None],
    options: EngineOptions,
    report: Report,
) -> dict:
    """Export an adapter to a typed ONNX file, which passes its parity gate, and build an engine from it.

    Args:
        source: an adapter, or a model file where nothing has to be exported (and PyTorch is not needed).

    Returns:
        the keys of :func:`.export_files.export_adapter`, and ``tensorrt, shapes, targets, gpu, device_parity_psnr_db, layers``.

    Raises:
        DarsrError: no library, a target or size that cannot be, and what exporting and building raise.
    """
    library, build = _prepared(options)
    if form == "filters" and (options.shape or options.shapes):
        raise DarsrError("--shape", "form filters has the size of its image", "leave it out, or use --form network")

    def claim_engine(name: str) -> Path:
        target = out or source.with_name(name).with_suffix(SUFFIX)
        if target.suffix != SUFFIX:
            raise DarsrError(
                str(target), f"does not end in {SUFFIX}, by which infer knows an engine", "choose such a name"
            )
        claim(sidecar_path(target))
        return claim(target)

    if source.suffix == ".onnx":
        spec = read_spec(source)[1]
        row = _row_of(source, spec, precision, form=form, backbone=backbone, image=image, calibration=calibration)
        target = claim_engine(source.name)
        if spec.form == "filters" and coefficients_path(target) != coefficients_path(source):
            claim(coefficients_path(target))
        facts = build_file(source, target, library, build, say, report, floor_db=floor)
        return row | _row(target, options.format, facts)

    from .export_files import export_adapter

    with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
        claimed: list[Path] = []

        def claim_instead(path: Path) -> Path:
            """The ONNX file goes into the temporary folder; what is claimed is the engine of its name."""
            if path.suffix == ".onnx":
                claimed.append(claim_engine(path.name))
            else:
                claim(coefficients_path(claimed[0]))
            return Path(folder) / path.name

        row = export_adapter(source, None, precision, form, backbone, image, calibration, floor, claim_instead, say)
        from ..samples import gather

        photo = gather(source, image).photo
        reference = Reference("PyTorch", _in_torch(source, backbone, image, row["form"]))
        facts = build_file(Path(row["model"]), claimed[0], library, build, say, report, reference, photo, floor)
    return row | _row(claimed[0], options.format, facts)


def export_split_engine(
    source: Path,
    out: Path | None,
    precision: str,
    form: str | None,
    backbone: str | None,
    image: Path | None,
    floor: float | None,
    claim: Callable[[Path], Path],
    say: Callable[[str], None],
    options: EngineOptions,
    report: Report,
) -> dict:
    """Export an adapter to a runtime bundle that holds the engines of its graphs, or build them into a bundle that is there.

    Args:
        source: an adapter, or a bundle: then neither PyTorch nor onnx is needed.

    Returns:
        the keys of :func:`.export_files.export_split` and :func:`export.artefacts.bundle_engines.engines_row`.

    Raises:
        DarsrError: as :func:`export_engine`; nothing is written then.
    """
    library, build = _prepared(options)
    if is_bundle(source):
        spec = Manifest.load(source).spec
        row = _row_of(source, spec, precision, form=form, backbone=backbone, image=image)
        target, engines = export_engines(source, out, library, build, claim, say, report, floor)
        row |= {"bytes": sum(path.stat().st_size for path in target.iterdir())}
        row |= {"sha256": hash_file(target / MANIFEST)}
        return {"model": str(target)} | row | engines_row(options.format, engines)

    from .export_files import export_split

    engines: dict[str, EngineFacts] = {}

    def add(folder: Path, target: Path) -> None:
        engines.update(add_engines(folder, library, build, target, say, report, floor))

    row = export_split(source, out, precision, form, backbone, image, floor, claim, say, add)
    return row | engines_row(options.format, engines)


def _prepared(options: EngineOptions) -> tuple[Library, BuildOptions]:
    """What can be said before the seconds that an export takes: the library, the targets, the GPU."""
    shapes = parse_shapes(options.shape, options.shapes)
    library = import_library(FAMILIES[options.format])
    targets = tuple(dict.fromkeys(t.strip() for t in (options.target or "").split(",") if t.strip()))
    check_targets(library, targets)
    if options.format == "trt":
        with Device():
            pass
    return library, BuildOptions(shapes or DEFAULT_SHAPES, targets, options.workspace)


def _row_of(source: Path, spec: ModelSpec, precision: str, **asked: object) -> dict:
    """What a model file or a bundle says of itself; nothing of it can be chosen any more."""
    wrong = [option for option, value in asked.items() if value is not None]
    wrong += ["precision"] * (precision not in ("fp32", spec.precision))
    if wrong:
        raise DarsrError(str(source), f"has its own {wrong[0]}", f"leave out --{wrong[0]}, or give the adapter")
    row = {"precision": spec.precision, "form": spec.form, "parity_psnr_db": spec.parity_psnr_db}
    row |= {"parity_floor_db": FLOORS_DB[spec.precision], "macs_per_lr_pixel": spec.macs_per_lr_pixel}
    return row | {"psnr_from_network_db": spec.psnr_from_network_db}


def _in_torch(adapter: Path, backbone: str | None, image: Path | None, form: str) -> Callable:
    """What PyTorch makes of a picture, loaded when it is first asked."""

    @functools.cache
    def formed():
        from ..artefacts.cache import Source, load
        from ..folding.forms import take_form
        from ..samples import gather

        pipeline, _ = load(Source(adapter=adapter, backbone=backbone))
        return take_form(pipeline, form, gather(adapter, image))

    return lambda lr: formed().run(lr, formed().coefficients)


def _row(target: Path, name: str, facts: EngineFacts) -> dict:
    row = {"model": str(target), "format": name, "bytes": facts.bytes, "sha256": facts.sha256}
    row |= {"tensorrt": facts.tensorrt, "shapes": str(facts.shapes), "targets": list(facts.targets), "gpu": facts.gpu}
    return row | {"device_parity_psnr_db": facts.device_parity_psnr_db, "layers": facts.layers}
