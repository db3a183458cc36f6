"""Adaptation of one image: from a file to an adapter."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from darsr_deploy.adapter import Adapter
from darsr_deploy.errors import DarsrError
from darsr_deploy.imaging import read_image

from .adapt_fast import adapt_fast
from .adapt_paper import adapt_paper
from .backbones import Backbone
from .checkpoint import Checkpoint
from .config import AdaptOptions

Report = Callable[[dict], None]


def adapt_image(
    image: str | Path,
    out: str | Path,
    backbone: Backbone,
    options: AdaptOptions,
    device: str = "cpu",
    resume: bool = False,
    report: Report = lambda _: None,
) -> tuple[Adapter, float]:
    """Adapt to one image and write the adapter file.

    While it runs, ``OUT.partial`` holds what ``resume`` continues from; it is removed when the adapter stands. The
    result of a resumed run equals that of an uninterrupted one, and with the same seed, threads and versions the
    file has the same bytes.

    Args:
        report: called with ``{phase, step, steps, loss}`` after every step.

    Returns:
        ``(adapter, seconds of the work)``.

    Raises:
        DarsrError: the image cannot be used, or ``resume`` finds a state of another image or other options.
    """
    image = Path(image)
    pixels = read_image(image)
    least = options.least_side()
    if min(pixels.shape[:2]) < least:
        raise DarsrError(
            str(image),
            f"is {pixels.shape[1]}x{pixels.shape[0]} pixels, too small to adapt with profile {options.name} (least side {least})",
            "use darsr infer --no-adapter",
        )
    source = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
    }
    identity = {"source": source, "backbone": backbone.sha256, "options": options.to_json()}
    checkpoint = Checkpoint(Path(f"{out}.partial"), json.dumps(identity, sort_keys=True), resume)
    started = time.perf_counter()
    run = adapt_fast if options.name == "fast" else adapt_paper
    result = run(pixels, backbone.module, options, device, checkpoint, report)
    seconds = time.perf_counter() - started
    facts = {
        "profile": options.name,
        "options": options.to_json(),
        "source": source,
        "steps": options.steps,
        "seed": options.seed,
        "versions": {"torch": torch.__version__, "format": 1},
        **result.facts,
    }
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in result.arrays.items()}
    adapter = Adapter(result.correction, options.scale, backbone.name, backbone.sha256, facts, arrays)
    adapter.save(out)
    checkpoint.remove()
    return adapter, seconds
