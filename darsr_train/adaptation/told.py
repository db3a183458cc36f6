"""Profile ``fast`` with networks that are told the degradation: from an image file to an adapter file, without PyTorch."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from darsr_deploy.adaptation.adapt import adapt
from darsr_deploy.blind.blur import blur_path
from darsr_deploy.blind.camera_traces import traces_path
from darsr_deploy.blind.compression import read_jpeg_quality
from darsr_deploy.blind.estimator import estimator_path
from darsr_deploy.blind.judgement import Networks
from darsr_deploy.blind.shape import shape_path
from darsr_deploy.bundle.shipped import REGIMES, backbone_path, is_default, load_weights, modulated_path, prior_path
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.images.arrays import read_image

from .inputs import check_size
from .options import AdaptOptions


def is_told(options: AdaptOptions, backbone_sha256: str, start: Adapter | None = None) -> bool:
    """Return whether nothing is fitted: the networks are functions of what is found out about an image."""
    unfitted = options.name == "fast" and options.family and not options.fits() and start is None
    return unfitted and is_default(backbone_sha256, options.scale)


def adapt_told(
    image: Path,
    out: str | Path,
    options: AdaptOptions,
    networks: Networks,
    *,
    resume: bool = False,
    replacing: bool = True,
    jpeg_quality: float | None = None,
) -> tuple[Adapter, float]:
    """Adapt to one image and write the adapter; the rest as :func:`.adapt.adapt_image`."""
    pixels = read_image(image)
    check_size(image, pixels.shape[1], pixels.shape[0], options)
    source = {"height": pixels.shape[0], "width": pixels.shape[1], "sha256": hash_file(image)}
    unfinished = Path(f"{out}.partial")
    if resume and Path(out).exists():
        backbone = load_weights(backbone_path(options.scale), "backbone").sha256
        return load_finished(out, image, backbone, options, source), 0.0
    if resume and unfinished.is_file():  # that of a fit
        why = "belongs to another image, backbone or other options"
        raise DarsrError(str(unfinished), why, "give the same ones, or leave out --resume")
    started = time.perf_counter()
    adapter = adapt(
        pixels,
        options.scale,
        amount=options.amount,
        denoise=options.denoise,
        deblock=options.deblock,
        jpeg_quality=jpeg_quality or read_jpeg_quality(image),
        rounds=options.rounds,
        networks=networks,
    )
    seconds = time.perf_counter() - started
    own = {"options": options.to_json(), "source": source, "seed": options.seed}
    adapter = replace(adapter, facts=adapter.facts | own)
    adapter.save(out, replacing)
    unfinished.unlink(missing_ok=True)
    return adapter, seconds


def told_networks(scale: int) -> list[Path]:
    """Return the package's files that such an adapter, or one of profile ``thorough``, depends on."""
    regimes = [modulated_path(scale, regime) for regime in REGIMES]
    return [*regimes, estimator_path(), prior_path(scale), blur_path(scale), traces_path(), shape_path()]


def load_finished(out: str | Path, image: Path, backbone_sha256: str, options: AdaptOptions, source: dict) -> Adapter:
    """Load the adapter of a finished run, so that a folder can be resumed.

    Raises:
        DarsrError: it is of another image, backbone or other options.
    """
    adapter = Adapter.load(out)
    recorded = adapter.facts.get("options")
    wanted, found = options.to_json(), AdaptOptions().to_json() | (recorded if isinstance(recorded, dict) else {})
    # An option that an older program lacked has its default; one that this program lacks counts only if it was used.
    found = {name: value for name, value in found.items() if name in wanted or value}
    if options.budget is not None:  # the steps of a budget are known only afterwards
        wanted, found = ({**o, "steps": None, "budget": None} for o in (wanted, found))
    same = adapter.backbone_sha256 == backbone_sha256 and found == wanted
    if not same or adapter.facts.get("source") != source:
        raise DarsrError(str(out), f"is not of {image} with these options", "give --overwrite instead of --resume")
    return adapter
