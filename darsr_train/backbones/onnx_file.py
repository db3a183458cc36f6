"""Read a foreign ONNX file: its external weights, its checksum, and no operator that may run for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import METADATA_KEY, ModelSpec
from darsr_deploy.install import install

from .onnx_graph import all_graphs, all_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_UNBOUNDED = ("Loop", "Scan", "SequenceMap")  # a number in the file, or one that is computed, says how often
_MOST_NODES = 100_000  # functions that call functions can multiply to any number
_MOST_BYTES = 2**31 - 1  # of one protobuf message


def read_onnx(path: Path) -> tuple[ModelProto, str]:
    """Read a model with its external weights and its local functions inlined.

    Returns:
        ``(model, sha256)``; the checksum covers the files that hold the weights too.

    Raises:
        DarsrError: onnx is not installed, the file is damaged, names weights outside of its folder, holds loops, or is
            an adapted model.
    """
    try:
        import onnx
        from onnx import inliner
        from onnx.checker import ValidationError
    except ImportError as error:
        raise DarsrError(
            str(path), f"an ONNX network needs {error.name}, which is not installed", install("export", "ort")
        ) from error
    from google.protobuf.message import DecodeError, EncodeError

    try:
        data = path.read_bytes()
        digest = hashlib.sha256(data)
        model = onnx.load_from_string(data)
        for content in _load_weights(model, path):
            digest.update(content)
        if model.ByteSize() > _MOST_BYTES:
            raise ValueError("with its weights it is larger than 2 GB")
        onnx.checker.check_model(model)
        if model.functions:
            _check_size(model)
            model = inliner.inline_local_functions(model)
            onnx.checker.check_model(model)
    except (OSError, DecodeError, EncodeError, ValidationError, ValueError, RecursionError) as error:
        why = str(error).strip().splitlines()
        raise DarsrError(
            str(path), f"is not a usable ONNX file ({why[0][:200] if why else 'damaged'})", "export it again"
        ) from error
    loops = sorted({n.op_type for g in all_graphs(model.graph) for n in g.node if n.op_type in _UNBOUNDED})
    if loops:
        raise DarsrError(str(path), f"holds {loops[0]} nodes, which may run for ever", "export it without loops")
    own = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if own is not None and ModelSpec.from_json(own, str(path)).form != "none":
        raise DarsrError(
            str(path),
            "is an adapted model: its correction is inside",
            "run it with darsr infer --model, or give its backbone",
        )
    return model, digest.hexdigest()


def _load_weights(model: ModelProto, path: Path) -> list[bytes]:
    """Put the weights that lie in other files into the model; return these files' contents, by name."""
    from onnx import TensorProto

    contents: dict[str, bytes] = {}
    for tensor in all_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        name = facts.get("location", "")
        if name not in contents:
            contents[name] = _beside(path, name).read_bytes()
        start = int(facts.get("offset", 0))
        end = start + int(facts["length"]) if "length" in facts else len(contents[name])
        if not 0 <= start <= end <= len(contents[name]):
            raise ValueError(f"tensor {tensor.name} lies behind the end of {name}")
        tensor.raw_data = contents[name][start:end]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return [contents[name] for name in sorted(contents)]


def _beside(path: Path, name: str) -> Path:
    """Return the file that a model names, which lies in the model's folder.

    A download cache keeps contents under ``blobs`` and links to them under ``snapshots/REVISION``, so a link may lead
    there, or to where the model's own link leads; no other place.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise ValueError(f"it names weights outside of its folder: {name!r}")
    file = (path.parent / name).resolve()
    folders = [path.parent.resolve(), path.resolve().parent]
    folders += [(parent.parent / "blobs").resolve() for parent in path.absolute().parents if parent.name == "snapshots"]
    if not any(file.is_relative_to(folder) for folder in folders):
        raise ValueError(f"{name} is a link out of its folder")
    if not file.is_file():
        raise ValueError(f"{name}, which holds its weights, is missing")
    return file


def _check_size(model: ModelProto) -> None:
    """Refuse functions that expand to more nodes than any network has; the checker has refused recursion."""
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(graph) -> int:
        return sum(of(node) for inner in all_graphs(graph) for node in inner.node)

    def of(node) -> int:
        key = node.domain, node.op_type
        if key not in functions:
            return 1
        if key not in sizes:
            sizes[key] = size(functions[key])
        return sizes[key]

    if size(model.graph) > _MOST_NODES:
        raise ValueError(f"its functions call each other more than {_MOST_NODES:,} times")
