"""SRFBN-S weights that others published: imported from a file, or downloaded and imported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from darsr_deploy.errors import DarsrError

from .fetch import fetch
from .registry import Backbone, build, load_backbone, save_backbone
from .store import PUBLISHED, installed_folder
from .tensors import load_checked, read_state


def import_weights(
    source: str | Path, target: str | Path, licence: str = "as stated by the weights' authors"
) -> Backbone:
    """Convert a published SRFBN-S ``.pth`` file to our format; scale and shapes are found out and checked.

    The origin of a file of :data:`.store.PUBLISHED` is known by its checksum: ``licence`` is then that of the catalogue.

    Raises:
        DarsrError: the file is missing, holds anything but tensors, or its shapes fit no scale of SRFBN-S.
    """
    source = Path(source)
    state = {k.removeprefix("module."): v.float() for k, v in read_state(source).items() if isinstance(v, Tensor)}
    up = state.get("out.0.weight")
    scale = {6: 2, 8: 4}.get(up.shape[-1]) if up is not None and up.ndim == 4 else None
    if scale is None:
        raise DarsrError(
            str(source), "does not hold SRFBN-S x2 or x4 weights", "give SRFBN-S_x2_BI.pth or SRFBN-S_x4_BI.pth"
        )
    module = build("srfbn-s", scale)
    load_checked(module, state, source)
    origin = hashlib.sha256(source.read_bytes()).hexdigest()
    facts = {"licence": licence, "source": source.name, "source_sha256": origin}
    facts = next((p.facts() for p in PUBLISHED.values() if p.sha256 == origin), facts)
    save_backbone(module, target, facts)
    return load_backbone(str(target), scale)


def download(name: str, base: str | None = None, report: Callable[[int], None] = lambda _: None) -> Path:
    """Download, verify and import published weights into the user's folder; returns the file.

    Args:
        base: another place that holds the published file under the same relative path.
        report: called with the bytes that are there.

    Raises:
        DarsrError: unknown name, a folder that cannot be made, or what :func:`.fetch.fetch` raises.
    """
    if name not in PUBLISHED:
        raise DarsrError(name, "is not among the weights that can be downloaded", f"choose {' or '.join(PUBLISHED)}")
    published = PUBLISHED[name]
    folder = installed_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarsrError(
            str(folder), f"cannot be made a folder ({error.strerror})", "set DARSR_DATA to one that can be written"
        ) from error
    partial = folder / f"{name}.pth.partial"
    url = f"{(base or published.base).rstrip('/')}/{published.file}"
    fetch(url, partial, published.size, published.sha256, report)
    target = folder / f"{name}.safetensors"
    import_weights(partial, target)
    partial.unlink()
    return target
