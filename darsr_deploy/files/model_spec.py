"""The metadata of an exported model: the contract of its input and output, its origin, its measured parity."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DarsrError
from .schema import make_dataclass, parse_json

METADATA_KEY = "darsr"  # in ONNX's metadata_props
VERSION = 2
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Least PSNR (peak 1) of the worst test image against PyTorch in float32, by precision: for every file and every engine.
FLOORS_DB = {"fp32": 80.0, "fp16": 50.0, "bf16": 40.0, "int8": 43.0}
COEFFICIENTS_KIND, COEFFICIENTS_VERSION = "coefficients", 1  # the container beside a model of form filters


@dataclass(frozen=True)
class Locality:
    """What running a model in tiles takes.

    Attributes:
        halo: LR pixels of context on every side; None where the model takes whole images only.
        alignment: LR pixels; tiles start at multiples of it.
        bytes_per_pixel: peak bytes of activations per LR pixel; 0 where unknown.
        stage_halos: the halo of each pass over the image that first collects an average.
        why, hint: why it takes whole images only, and what can be done.
        most: longest side in LR pixels that can be computed at once; None for any.
    """

    halo: int | None = None
    alignment: int = 1
    bytes_per_pixel: int = 0
    stage_halos: tuple[int, ...] = ()
    why: str = ""
    hint: str = "use --tile 0"
    most: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """The metadata of an exported model.

    Input ``lr``: float32 N x 3 x H x W, RGB in [0, 1], sides of at least 3. Output ``sr``: float32 N x 3 x sH x sW,
    RGB in [0, 1]. Form ``filters`` has a second input ``coeff``, float32 N x 13 x H x W, and serves one image only.
    Inputs and outputs are float32 whatever the precision inside.
    """

    scale: int
    form: str = "network"  # none | global | network | filters: what stands before the backbone
    precision: str = "fp32"  # fp32 | fp16 | bf16 | int8
    backbone: str = ""
    backbone_sha256: str = ""
    adapter_sha256: str = ""
    opset: int = 18
    parity_psnr_db: float | None = None  # worst test picture against PyTorch in float32
    macs_per_lr_pixel: int | None = None
    psnr_from_network_db: float | None = None  # what the form costs on the image it was made from
    calibration: str = ""  # int8: where the ranges come from
    source_sha256: str = ""  # forms filters and global: the image they were made from
    source_height: int | None = None  # form filters: the size it is for
    source_width: int | None = None
    coefficients_sha256: str = ""  # form filters: of the file beside the model
    halo: int | None = None  # LR pixels of context that a tile needs; None: whole images only, and why:
    whole_because: str = ""
    alignment: int = 1  # tiles begin at multiples of it
    bytes_per_lr_pixel: int | None = None  # peak bytes of activations
    layout: str = "NCHW RGB float32 [0,1]"
    version: int = VERSION

    def extended(self, **values: Any) -> ModelSpec:
        """Return a copy with some fields replaced."""
        return replace(self, **values)

    def to_json(self) -> dict:
        """Return the fields as JSON values."""
        return asdict(self)

    def locality(self) -> Locality:
        """Return what running the model in tiles takes."""
        hint = "make a bundle of it (darsr export --split)" if self.form == "network" else "use --tile 0"
        return Locality(self.halo, self.alignment, self.bytes_per_lr_pixel or 0, why=self.whole_because, hint=hint)

    @classmethod
    def from_json(cls, text: str, path: str) -> ModelSpec:
        """Parse metadata strictly.

        Raises:
            DarsrError: not made by this toolkit, or by another version of it.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise DarsrError(path, _NO_METADATA, _EXPORT) from error
        return cls.from_values(values, path)

    @classmethod
    def from_values(cls, values: object, path: str) -> ModelSpec:
        """Make a spec of JSON values.

        Raises:
            DarsrError: as :meth:`from_json`.
        """
        version = values.get("version") if isinstance(values, dict) else None
        if isinstance(version, int) and version != VERSION:
            raise DarsrError(path, f"has metadata version {version}, this program reads {VERSION}", "export it again")
        try:
            spec = make_dataclass(cls, values)
            if version is None:
                raise ValueError("field version is missing")
            for name, least in _LEAST.items():
                if (value := getattr(spec, name)) is not None and value < least:
                    raise ValueError(f"field {name} is {value}, expected at least {least}")
        except ValueError as error:
            raise DarsrError(path, f"{_NO_METADATA} ({error})", _EXPORT) from error
        return spec


_LEAST = {"scale": 1, "halo": 0, "alignment": 1, "bytes_per_lr_pixel": 0, "source_height": 1, "source_width": 1}
_NO_METADATA, _EXPORT = "does not hold the metadata of an exported model", "make one with darsr export"


def coefficients_path(model: str | Path) -> Path:
    """Return the path of the coefficients of a form ``filters``: ``photo.coeff.safetensors`` beside ``photo.onnx``."""
    return Path(model).with_suffix(".coeff.safetensors")


def declared_precision(data: bytes) -> str | None:
    """Return the precision named in the bytes of an ONNX file, for one that a runtime cannot load."""
    found = re.search(rb'"precision": "(\w+)"', data)
    return found.group(1).decode() if found else None
