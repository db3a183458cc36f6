"""Tell the kind of a file, by its content first and then by its name, for errors about one of another kind."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..errors import DarsrError
from .schema import parse_json


@dataclass(frozen=True)
class Kind:
    """A kind of file: its title, and the commands that take it ({0} stands for the file)."""

    title: str
    use: str


KINDS = {
    "image": Kind("an image", "darsr upscale {0} and darsr adapt {0} take it"),
    "video": Kind("a video", "darsr upscale {0} and darsr infer {0} take it"),
    "adapter": Kind("an adapter", "darsr infer IMAGE --adapter {0} and darsr export {0} take it"),
    "model": Kind(
        "an ONNX model", "darsr infer IMAGE --model {0} takes what darsr export wrote, --backbone any network"
    ),
    "engine": Kind("a TensorRT engine", "darsr infer IMAGE --model {0} takes it"),
    "bundle": Kind("a runtime bundle", "darsr infer IMAGE --model {0} takes it"),
    "backbone": Kind("a backbone", "--backbone {0} takes it"),
    "weights": Kind("a PyTorch weight file", "--backbone {0} and darsr backbone import {0} take it"),
    "report": Kind("a JSON report", "darsr report --bench {0} and darsr bench --compare take what darsr bench wrote"),
    "folder": Kind("a folder", "give a file"),
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")  # read and written
READ_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".heic", ".heif", ".mpo")
RAW_SUFFIXES = (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".srw", ".orf", ".rw2", ".raf", ".pef", ".3fr", ".iiq")
UNREAD = (*RAW_SUFFIXES, ".gif", ".psd", ".jp2", ".j2k", ".jxl", ".exr", ".hdr", ".svg", ".ppm", ".pgm", ".tga", ".ico")
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"BM", "image"),
    (b"\x1a\x45\xdf\xa3", "video"),  # Matroska, WebM
    (b"YUV4MPEG2 ", "video"),
    (b"\x00\x00\x01\xba", "video"),  # MPEG program stream
    (b"\x00\x00\x01\xb3", "video"),  # MPEG-1 and MPEG-2 without a container
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),  # ASF, WMV
    (b"FLV\x01", "video"),
    (b"OggS", "video"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "video"),  # MXF
    (b"\x1f\x07\x00", "video"),  # DV
)
_SUFFIXES = {".darsr": "adapter", ".onnx": "model", ".engine": "engine", ".pth": "weights", ".pt": "weights"}
_STILL = (b"hei", b"hev", b"mif", b"msf", b"avi", b"crx")  # brands of pictures in the container of MP4
# The second field of an ONNX file, behind its version: producer, its version, domain, graph or operator sets.
_ONNX_SECOND = b"\x12\x1a\x22\x3a\x42"
_PACKETS = ((0, 188), (4, 192))  # of an MPEG transport stream: where the first begins, and how long they are
_MOST_HEADER = 1 << 20


def another_kind(path: str | Path, *wanted: str) -> DarsrError | None:
    """Return the error for a file of a known kind that is not wanted here.

    Args:
        wanted: names in :data:`KINDS`; the error names the first.

    Returns:
        None where the kind is wanted or unknown: the reader's own error then says more.
    """
    name = recognised(Path(path))
    if name is None or name in wanted:
        return None
    kind = KINDS[name]
    return DarsrError(
        str(path), f"is {kind.title}, not {KINDS[wanted[0]].title}", kind.use.format(shlex.quote(str(path)))
    )


def recognised(path: Path) -> str | None:
    """Return the kind of a file or folder, a name in :data:`KINDS`; None where it is missing or unknown."""
    try:
        if os.path.isdir(path):
            return "bundle" if (path / "bundle.json").is_file() else "folder"
        if not os.path.isfile(path):  # reading a pipe would consume it
            return None
        with open(path, "rb") as file:
            head = file.read(_MOST_HEADER)
    except OSError:
        return None
    return _by_content(head) or _SUFFIXES.get(path.suffix.lower())


def _by_content(head: bytes) -> str | None:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return "image" if head[8:11] in _STILL else "video"
    if any(len(head) > at + 3 * step and head[at : at + 3 * step + 1 : step] == b"GGGG" for at, step in _PACKETS):
        return "video"
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in [bytes([byte]) for byte in _ONNX_SECOND]:
        return "model"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < _MOST_HEADER:
        return _of_safetensors(head[8 : 8 + length])
    return "report" if head.lstrip()[:1] == b"{" else None


def _of_safetensors(header: bytes) -> str | None:
    """Return the kind that our metadata names; ``weights`` for a file of tensors without it."""
    try:
        own = parse_json(header).get("__metadata__", {}).get("darsr")
        kind = parse_json(own)["kind"] if own else "weights"
        return kind if kind in KINDS else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
