"""An engine file and its sidecar: what was built, from what, for which device; and whether the bytes are still those.

``photo.engine`` is what TensorRT serialised. ``photo.engine.json`` beside it holds the model's contract and the facts of the
build, with the engine's sha256 and a checksum of its own.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import DarsrError
from ..files.atomic import atomic_path
from ..files.hashing import hash_bytes, hash_json
from ..files.model_spec import ModelSpec
from ..files.schema import make_dataclass, parse_json, shorten
from .shapes import Shapes

SUFFIX = ".engine"
KIND, VERSION = "engine", 1


@dataclass(frozen=True)
class EngineFacts:
    """What a sidecar says of an engine."""

    spec: ModelSpec  # the contract of input and output, as of the ONNX file
    family: str  # trt | trt-rtx
    tensorrt: str  # the version that built it, and the only one that is sure to load it
    shapes: Shapes
    onnx_sha256: str
    graph: str = ""  # of a runtime bundle: which of its graphs it is; empty: a whole model
    targets: tuple[str, ...] = ()  # trt-rtx: the compute capabilities asked for; empty: the library's own choice
    gpu: str = ""  # trt: the GPU it was built on
    target: str = ""  # trt: its compute capability
    typed: bool = True  # strongly typed; else built with precision flags
    layers: dict[str, int] = field(default_factory=dict)  # of the parsed network: layers by type and output type
    workspace_mb: int = 0  # limit of scratch memory while building; 0: none
    device_parity_psnr_db: float | None = None  # worst test picture on the GPU; None: built, never run
    sha256: str = ""
    bytes: int = 0
    cache_key: str = ""

    def to_json(self) -> dict:
        """Return the facts as JSON values."""
        return {
            **asdict(self),
            "spec": self.spec.to_json(),
            "shapes": self.shapes.to_json(),
            "targets": list(self.targets),
        }


def sidecar_path(engine: str | Path) -> Path:
    """Return where the sidecar of an engine lies."""
    return Path(f"{engine}.json")


def write_engine(engine: Path, data: bytes, facts: EngineFacts) -> EngineFacts:
    """Write an engine and its sidecar, both or neither; return the facts with the engine's hash and size."""
    facts = EngineFacts(**{**vars(facts), "sha256": hash_bytes(data), "bytes": len(data)})
    header = {"kind": KIND, "version": VERSION, "facts": facts.to_json()}
    header["checksum"] = hash_json(header)
    with contextlib.ExitStack() as written:  # the sidecar is renamed last: an engine without one is no engine
        beside = written.enter_context(atomic_path(sidecar_path(engine)))
        beside.write_text(json.dumps(header, indent=1, sort_keys=True) + "\n")
        written.enter_context(atomic_path(engine)).write_bytes(data)
    return facts


def read_facts(engine: Path) -> EngineFacts:
    """Read and check the sidecar of an engine.

    Raises:
        DarsrError: missing, damaged, or of another version.
    """
    path, hint = sidecar_path(engine), "build the engine again with darsr export"
    try:
        header = parse_json(path.read_bytes())
        kind, version, facts = header["kind"], header["version"], dict(header["facts"])
    except OSError as error:
        if not engine.is_file():
            raise DarsrError(str(engine), "there is no such file", "make it with darsr export --format trt") from error
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "copy it from beside the engine") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DarsrError(str(path), "is no sidecar of an engine, or is damaged", hint) from error
    if (kind, version) != (KIND, VERSION):
        raise DarsrError(
            str(path), f"is {shorten(kind)} version {shorten(version)}, this program reads {KIND} {VERSION}", hint
        )
    if header.pop("checksum", None) != hash_json(header):
        raise DarsrError(str(path), "is damaged: its checksum does not match its content", hint)
    try:
        facts["spec"] = ModelSpec.from_values(facts.get("spec"), str(path))
        facts["shapes"] = Shapes.from_json(facts.get("shapes"), str(path))
        return make_dataclass(EngineFacts, facts)
    except ValueError as error:
        raise DarsrError(str(path), f"lacks a fact, has one too many or a wrong one ({error})", hint) from error


def read_engine(engine: str | Path) -> tuple[bytes, EngineFacts]:
    """Return the bytes of an engine, checked against its sidecar, and its facts.

    Raises:
        DarsrError: missing or damaged.
    """
    engine = Path(engine)
    facts = read_facts(engine)
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise DarsrError(str(engine), f"cannot be read ({error.strerror})", "check the name") from error
    if hash_bytes(data) != facts.sha256:
        raise DarsrError(
            str(engine), "is damaged: its sha256 is not that of its sidecar", "build the engine again with darsr export"
        )
    return data, facts
