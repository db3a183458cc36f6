"""What a runtime bundle holds: the manifest ``bundle.json``, with the checksum of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DarsrError
from ..files.adapter import MOST_KERNEL_SIDE
from ..files.atomic import write_text
from ..files.hashing import hash_bytes
from ..files.model_spec import ModelSpec
from ..files.schema import make_dataclass, parse_json, shorten
from .graphs import GRAPHS

MANIFEST = "bundle.json"
OWN_ADAPTER = "adapter.darsr"  # the one that the bundle was exported from
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
        modulation_sha256: sha256 of the file of the networks whose backbone adapters modulate; empty for a frozen one.
        modulated_channels: length of an adapter's scales and shifts; 0 for a frozen backbone.
    """

    spec: ModelSpec
    files: Mapping[str, str]
    weights: Mapping[str, list[int]]
    kernel_side: int
    halos: Mapping[str, int | None]
    alignment: int
    bytes_per_pixel: Mapping[str, int]
    whole_because: str = ""
    modulation_sha256: str = ""
    modulated_channels: int = 0
    kind: str = "bundle"
    version: int = VERSION

    def save(self, folder: Path) -> None:
        """Write ``bundle.json``."""
        write_text(folder / MANIFEST, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def read(self, folder: Path, name: str) -> bytes:
        """Read a file of the bundle.

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

    def bound_shapes(self, graph: str) -> dict[str, tuple[int, ...]]:
        """Return the inputs of a graph that arrays of an adapter are bound to, with their shapes; -1 is any size."""
        channels = (self.modulated_channels,)
        others: dict[str, dict[str, tuple[int, ...]]] = {"filter": {"coeff": (-1, 13, -1, -1)}}
        others["backbone"] = {"scale": channels, "shift": channels} if self.modulation_sha256 else {}
        others["backprojection"] = {"kernel": (self.kernel_side, self.kernel_side)}
        if graph in others:
            return others[graph]
        names, stage = list(self.weights), graph.removeprefix("stats")
        if stage.isdigit():  # it ends before the attention that it is for
            read = ["head.", *(f"stages.{before}." for before in range(int(stage)))]
            read += [f"stages.{stage}.{layer}." for layer in ("first", "second")]
            names = [name for name in names if name.startswith(tuple(read))]
        return {name: tuple(self.weights[name]) for name in names}

    def own_adapter(self, folder: Path) -> Path | None:
        """Return the adapter that the bundle was exported from, if it holds it."""
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
            values = parse_json(path.read_bytes())
        except OSError as error:
            raise DarsrError(str(folder), f"is not a bundle: {MANIFEST} is missing there", _HINT) from error
        except ValueError as error:
            raise DarsrError(str(path), "is damaged", _HINT) from error
        if values.get("kind") != "bundle":
            raise DarsrError(str(path), "does not describe a bundle", _HINT)
        if values.get("version") != VERSION:
            why = f"has format version {shorten(values.get('version'))}, this program reads {VERSION}"
            raise DarsrError(str(path), why, _HINT)
        values["spec"] = ModelSpec.from_values(values.get("spec"), str(path))
        try:
            manifest = make_dataclass(cls, values)
            manifest._check()
        except ValueError as error:
            raise DarsrError(str(path), str(error), _HINT) from error
        return manifest

    def _check(self) -> None:
        """Raise ValueError for a field whose values cannot be."""
        names = {f"{graph}.onnx" for graph in GRAPHS}
        checks = {
            "files": names <= self.files.keys() <= {*names, OWN_ADAPTER},
            "halos": _counts(self.halos),
            "bytes_per_pixel": _counts(self.bytes_per_pixel),
            "weights": all(side > 0 for shape in self.weights.values() for side in shape),
            "kernel_side": self.kernel_side in range(0, MOST_KERNEL_SIDE + 1, 2),
            "alignment": self.alignment > 0,
            "modulated_channels": (self.modulated_channels > 0) == bool(self.modulation_sha256),
        }
        for name, holds in checks.items():
            if not holds:
                raise ValueError(f"field {name} is not that of a bundle")


def _counts(sizes: Mapping[str, int | None]) -> bool:
    return sizes.keys() == set(GRAPHS) and all(size is None or size >= 0 for size in sizes.values())


def is_bundle(path: str | Path) -> bool:
    """Return whether a path is a folder, and so can be no other kind of model."""
    return Path(path).is_dir()
