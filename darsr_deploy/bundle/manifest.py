"""What a runtime bundle holds: the manifest ``bundle.json``, with the checksum of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DarsrError
from ..files.atomic import write_text
from ..files.hashing import hash_bytes
from ..files.model_spec import ModelSpec

MANIFEST = "bundle.json"
OWN_ADAPTER = "adapter.darsr"  # the one that the bundle was exported from
GRAPHS = ("backbone", "backprojection", "correction", "correction_tile", "filter", "stats0", "stats1")
VERSION = 1
_HINT = "make it again with darsr export --split"


@dataclass(frozen=True)
class Manifest:
    """What ``bundle.json`` says.

    Attributes:
        spec: the contract of the whole, and its measured parity. Form ``network``: adapters of the others run as well.
        files: sha256 by file name.
        weights: shapes of the correction's weights, by the names of a DARM of 13 taps.
        kernel_side: largest side of a kernel of back-projection.
        halos: LR pixels around a tile, by graph; None where it takes whole images alone. That of the backbone should not:
            ``whole_because`` then says why.
        alignment: tiles begin at multiples of it.
        bytes_per_pixel: values that are alive at a time, per LR pixel, by graph.
    """

    spec: ModelSpec
    files: Mapping[str, str]
    weights: Mapping[str, list[int]]
    kernel_side: int
    halos: Mapping[str, int | None]
    alignment: int
    bytes_per_pixel: Mapping[str, int]
    whole_because: str = ""
    kind: str = "bundle"
    version: int = VERSION

    def save(self, folder: Path) -> None:
        write_text(folder / MANIFEST, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def read(self, folder: Path, name: str) -> bytes:
        """A file of the bundle.

        Raises:
            DarsrError: it is missing, or is not the one that the manifest lists.
        """
        path = folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DarsrError(str(path), f"cannot be read ({error.strerror})", _HINT) from error
        if hash_bytes(data) != self.files[name]:
            raise DarsrError(str(path), f"is not the file that {MANIFEST} lists: its checksum differs", _HINT)
        return data

    def own_adapter(self, folder: Path) -> Path | None:
        """The adapter that the bundle was exported from, if it holds it."""
        if OWN_ADAPTER not in self.files:
            return None
        self.read(folder, OWN_ADAPTER)
        return folder / OWN_ADAPTER

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read and check the manifest; the files themselves are checked as they are read.

        Raises:
            DarsrError: there is none, or a field is unknown, missing or of a wrong kind; the line names it.
        """
        path = Path(folder) / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DarsrError(str(folder), f"is no bundle: {MANIFEST} is missing there", _HINT) from error
        except ValueError as error:
            raise DarsrError(str(path), "is damaged", _HINT) from error
        if not isinstance(values, dict) or values.get("kind") != "bundle":
            raise DarsrError(str(path), "does not describe a bundle", _HINT)
        if values.get("version") != VERSION:
            why = f"has format version {values.get('version')}, this program reads {VERSION}"
            raise DarsrError(str(path), why, _HINT)
        for name, kind in _FIELDS.items():
            if not isinstance(values.get(name), kind):
                raise DarsrError(str(path), f"field {name} is missing or not as expected", _HINT)
        if unknown := sorted(values.keys() - {*_FIELDS, "kind", "version"}):
            raise DarsrError(str(path), f"field {unknown[0]} is not known", _HINT)
        values["spec"] = ModelSpec.from_json(json.dumps(values["spec"]), str(path))
        names = {f"{graph}.onnx" for graph in GRAPHS}
        if not names <= values["files"].keys() <= {*names, OWN_ADAPTER}:
            raise DarsrError(str(path), "field files does not list a bundle's files", _HINT)
        for name in ("halos", "bytes_per_pixel"):
            if not values[name].keys() == set(GRAPHS) or not all(_is_count(v, name) for v in values[name].values()):
                raise DarsrError(str(path), f"field {name} is missing or not as expected", _HINT)
        return cls(**values)


_FIELDS = {
    "spec": dict,
    "files": dict,
    "weights": dict,
    "kernel_side": int,
    "halos": dict,
    "alignment": int,
    "bytes_per_pixel": dict,
    "whole_because": str,
}


def _is_count(value: object, name: str) -> bool:
    return (isinstance(value, int) and value >= 0) or (value is None and name == "halos")


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a folder, and so can be no other kind of model."""
    return Path(path).is_dir()
