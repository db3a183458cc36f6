"""Adapt to one image: from an image file to an adapter file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from darsr_deploy.adaptation.networks import OrtNetworks
from darsr_deploy.blind.blur import blur_path
from darsr_deploy.blind.camera_traces import traces_path
from darsr_deploy.blind.compression import read_jpeg_quality
from darsr_deploy.bundle.shipped import is_default
from darsr_deploy.engines.ort import installed_runtimes
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.images.arrays import read_image

from ..backbones import Backbone
from ..blind.networks import TorchNetworks
from ..networks.darm import DARM
from ..networks.family import family_path
from ..networks.prior import prior_path
from ..pipeline import correction_of
from .checkpoint import Checkpoint
from .fast import adapt_fast
from .inputs import check_size
from .options import AdaptOptions
from .paper import adapt_paper
from .thorough import adapt_thorough
from .told import adapt_told, is_told, load_finished, told_networks

Report = Callable[[dict], None]
_STATE = 3  # layout of the unfinished state: 3 holds the average of the iterates


def adapt_image(
    image: str | Path,
    out: str | Path,
    backbone: Backbone,
    options: AdaptOptions,
    device: str = "cpu",
    resume: bool = False,
    report: Report = lambda _: None,
    start: Adapter | None = None,
    replace: bool = True,
    jpeg_quality: float | None = None,
) -> tuple[Adapter, float]:
    """Adapt to one image and write the adapter file.

    While it runs, ``OUT.partial`` holds what ``resume`` continues from; it is removed once the adapter is written. A
    resumed run gives the result of an uninterrupted one, and the same seed, threads and versions give the same bytes.

    Args:
        report: called with ``{phase, step, steps, loss}`` after every step.
        start: another image's adapter to start from (profile ``fast``): a burst, a video's next scene.
        replace: False refuses an adapter that another program has written meanwhile.
        jpeg_quality: what a JPEG's tables say, where ``image`` is a lossless copy of its pixels.

    Returns:
        ``(adapter, seconds)``.

    Raises:
        DarsrError: the image cannot be used, or ``resume`` finds a state of another image or other options.
    """
    image = Path(image)
    runs = device == "cpu" and installed_runtimes()
    if is_told(options, backbone.sha256, start):
        networks = OrtNetworks(options.scale) if runs else TorchNetworks(options.scale, device)
        rest = {"resume": resume, "replacing": replace, "jpeg_quality": jpeg_quality}
        return adapt_told(image, out, options, networks, **rest)
    more = {"start": _network_to_start_from(start, options)} if start is not None else {}
    if options.name == "thorough" and not is_default(backbone.sha256, options.scale):
        raise DarsrError("profile thorough", "fits the networks of the default backbone", "use --profile fast")
    pixels = read_image(image)
    check_size(image, pixels.shape[1], pixels.shape[0], options)
    source = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "sha256": hash_file(image),
    }
    identity = {"source": source, "backbone": backbone.sha256, "options": options.to_json()}
    shipped = (told_networks if options.name == "thorough" else shipped_networks)(options.scale)
    identity["prior"] = [hash_file(path) if path.is_file() else "" for path in shipped]
    identity |= {"versions": versions(), "state": _STATE}
    if start is not None:
        identity["from"] = start.facts.get("source")
    if resume and Path(out).exists():
        return load_finished(out, image, backbone.sha256, options, source), 0.0
    checkpoint = Checkpoint(Path(f"{out}.partial"), json.dumps(identity, sort_keys=True), resume)
    started = time.perf_counter()
    facts = {
        "profile": options.name,
        "options": options.to_json(),
        "source": source,
        "steps": options.steps,
        "seed": options.seed,
        "versions": versions(),
        **({"from": start.facts.get("source")} if start is not None else {}),
    }
    if options.name == "thorough":
        networks = OrtNetworks(options.scale) if runs else TorchNetworks(options.scale, device)
        quality = jpeg_quality or read_jpeg_quality(image)
        adapter = adapt_thorough(pixels, options, networks, device, checkpoint, report, quality)
        adapter = dataclasses.replace(adapter, facts=facts | adapter.facts)
    else:
        run = adapt_fast if options.name == "fast" else adapt_paper
        result = run(pixels, backbone.module, options, device, checkpoint, report, **more)
        adapter = Adapter(
            correction=result.correction,
            scale=options.scale,
            backbone=backbone.name,
            backbone_sha256=backbone.sha256,
            facts=facts | result.facts,
            arrays={name: np.ascontiguousarray(a, np.float32) for name, a in result.arrays.items()},
            rounds=result.rounds,
        )
    seconds = time.perf_counter() - started
    adapter.save(out, replace)
    checkpoint.remove()
    return adapter, seconds


def shipped_networks(scale: int) -> list[Path]:
    """Return the package's files that blur is estimated with, beside the backbone; some do not exist at every scale."""
    priors = [prior_path(scale, camera) for camera in (False, True)]
    return [*priors, family_path(scale), blur_path(scale), traces_path()]


def versions() -> dict[str, str]:
    """Return the versions that an adapter's bytes depend on."""
    return {"darsr": importlib.metadata.version("darsr"), "torch": torch.__version__}


def _network_to_start_from(start: Adapter, options: AdaptOptions) -> DARM:
    """Return the correction network of another adapter.

    Raises:
        DarsrError: another scale, a profile that cannot start from an adapter, or one without a 13-tap network.
    """
    if options.name != "fast":
        raise DarsrError("--from", f"profile {options.name} learns from one image alone", "use --profile fast")
    if start.scale != options.scale:
        raise DarsrError("--from", f"is an adapter for scale {start.scale}", f"use --scale {start.scale}")
    network = correction_of(start)
    if not isinstance(network, DARM) or network.dictionary is not None:
        raise DarsrError(
            "--from", f"holds no fast correction network (its correction is {start.correction})", "leave it out"
        )
    return network
