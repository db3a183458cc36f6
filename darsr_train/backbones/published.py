"""Import published SRFBN-S weights from a file, or download and import them."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from torch import Tensor

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_bytes, hash_file

from .registry import Backbone, build, load_backbone, save_backbone
from .store import PUBLISHED, Published, installed_folder
from .tensors import load_checked, read_state

_TIMEOUT = 30.0  # seconds without a byte


def import_weights(
    source: str | Path, target: str | Path, licence: str = "as stated by the weights' authors"
) -> Backbone:
    """Convert a published SRFBN-S ``.pth`` file to our format, deriving the scale and checking every shape.

    A file listed in :data:`.store.PUBLISHED` is recognised by its checksum and takes its licence from there.

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
    origin = hash_file(source)
    facts = {"licence": licence, "source": source.name, "source_sha256": origin}
    facts = next((p.facts() for p in PUBLISHED.values() if p.sha256 == origin), facts)
    save_backbone(module, target, facts)
    return load_backbone(str(target), scale)


def download(name: str, base: str | None = None) -> Path:
    """Download, verify and import published weights into the user's folder; return the file.

    Args:
        base: another place that holds the published file under the same relative path.

    Raises:
        DarsrError: unknown name, a folder that cannot be written, no such address, no network, or a file of another
            length or checksum than the published one. Nothing is written then.
    """
    if name not in PUBLISHED:
        raise DarsrError(name, "is not among the weights that can be downloaded", f"choose {' or '.join(PUBLISHED)}")
    data, folder = _fetch(PUBLISHED[name], base), installed_folder()
    target = folder / f"{name}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            weights = Path(temporary) / f"{name}.pth"
            weights.write_bytes(data)
            import_weights(weights, target)
    except OSError as error:
        raise DarsrError(
            str(folder), f"cannot be written ({error.strerror})", "set DARSR_DATA to a folder that can be written"
        ) from error
    return target


def _fetch(published: Published, base: str | None) -> bytes:
    """Return the bytes of a published file; at most one byte more than its length is read."""
    url = f"{(base or published.base).rstrip('/')}/{published.file}"
    if not url.startswith(("http://", "https://")):
        raise DarsrError(url, "is not a web address", "give one that starts with https://")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            data = response.read(published.size + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be parsed
        why = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise DarsrError(
            url, f"cannot be downloaded ({why})", "check the network, or give another place with --url"
        ) from error
    if len(data) != published.size or hash_bytes(data) != published.sha256:
        raise DarsrError(
            url,
            f"is not the published file: its length or sha256 differs (expected {published.size:,} bytes)",
            "try again, or give another --url",
        )
    return data
