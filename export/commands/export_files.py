"""What ``darsr export`` does, behind its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter

from ..artefacts.bundle import Also, export_bundle
from ..artefacts.bundle_engines import require_replaceable
from ..artefacts.cache import Source, load
from ..artefacts.model import export_onnx
from ..artefacts.parity import FLOORS_DB, expected_loss_db
from ..folding.forms import choose_form
from ..samples import gather


def export_adapter(
    adapter: Path,
    out: Path | None,
    precision: str,
    form: str | None,
    backbone: str | None,
    image: Path | None,
    calibration: Path | None,
    floor: float | None,
    claim: Callable[[Path], Path],
    say: Callable[[str], None],
) -> dict:
    """Export an adapter to one ONNX file; see :func:`export.artefacts.model.export_onnx` for what is returned and raised.

    Args:
        out: by default beside the adapter: ``photo.onnx``, ``photo_fp16.onnx``, ``photo_global_int8.onnx``.
        claim: reserves a file before the work for it begins.
        say: told about what the user should know beside the result.
    """
    pipeline, spec = load(Source(adapter=adapter, backbone=backbone))
    own = spec.form
    spec = spec.extended(form=choose_form(own, form, str(adapter)), precision=precision)
    tail = "".join(f"_{part}" for part, usual in ((spec.form, own), (precision, "fp32")) if part != usual)
    target = claim(out or adapter.with_name(f"{adapter.stem}{tail}.onnx"))
    if spec.form == "filters":
        from darsr_deploy.files.model_spec import coefficients_path

        claim(coefficients_path(target))
    samples = gather(adapter, image, calibration)
    if precision == "int8" and not samples.calibration:
        say(
            "the adapted image does not lie beside the adapter: calibrating on synthetic pictures (--image, --calibration)"
        )
    facts = export_onnx(pipeline, target, spec, floor, samples)
    _say_loss(facts, target, say)
    return {"model": facts.pop("model"), "format": "onnx", **facts}


def export_split(
    adapter: Path,
    out: Path | None,
    precision: str,
    form: str | None,
    backbone: str | None,
    image: Path | None,
    floor: float | None,
    claim: Callable[[Path], Path],
    say: Callable[[str], None],
    also: Also = lambda folder, target: None,
) -> dict:
    """Export an adapter to a runtime bundle; see :func:`export.artefacts.bundle.export_bundle` for what is returned and raised.

    Args:
        out: a folder; by default ``photo.bundle`` or ``photo_fp16.bundle`` beside the adapter.
        also: as of :func:`export.artefacts.bundle.export_bundle`.
    """
    if form is not None:
        raise DarsrError(f"--form {form}", "a bundle runs every adapter in its own form", "leave out --form or --split")
    pipeline, spec = load(Source(adapter=adapter, backbone=backbone))
    tail = "" if precision == "fp32" else f"_{precision}"
    target = out or adapter.with_name(f"{adapter.stem}{tail}.bundle")
    require_replaceable(target)
    claim(target)
    spec = spec.extended(precision=precision)
    facts = export_bundle(pipeline, Adapter.load(adapter), target, spec, floor, gather(adapter, image), adapter, also)
    _say_loss(facts, target, say)
    return {"model": facts.pop("model"), "format": "bundle", **facts}


def _say_loss(facts: dict, target: Path, say: Callable[[str], None]) -> None:
    parity = facts["parity_psnr_db"]
    if parity < FLOORS_DB[facts["precision"]]:
        say(
            f"{target}: {parity:.1f} dB from PyTorch; expect to lose about {expected_loss_db(parity):.2f} dB of quality"
        )
