"""What a model file says of itself: the contract of its input and output, its origin, its measured parity."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import DarsrError
from .schema import check_types

METADATA_KEY = "darsr"  # in ONNX's metadata_props
VERSION = 2
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Least PSNR (peak 1) of the worst test image against PyTorch in float32, by precision: for every file and every engine.
FLOORS_DB = {"fp32": 80.0, "fp16": 50.0, "bf16": 40.0, "int8": 43.0}
COEFFICIENTS_KIND, COEFFICIENTS_VERSION = "coefficients", 1  # the container beside a model of form filters


@dataclass(frozen=True)
class Locality:
    """What tiles of a model need.

    Attributes:
        halo: LR pixels on every side; None where it takes whole images alone.
        alignment: LR pixels; tiles begin at multiples of it.
        bytes_per_pixel: values that are alive at a time, per LR pixel; 0 where it is not known.
        stage_halos: the same as ``halo`` for each pass over the image that collects an average first.
        why: it takes whole images alone, and what can be done.
        most: LR pixels of a side that can be computed at a time; None: any.
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
    """Metadata of an exported model.

    Input ``lr``: float32 N x 3 x H x W, RGB in [0, 1], sides of at least 3. Output ``sr``: float32 N x 3 x sH x sW,
    RGB in [0, 1]. Form ``filters`` has a second input ``coeff``, float32 N x 13 x H x W, and is for one image alone.
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
    halo: int | None = None  # LR pixels that a tile needs around it; None where it takes whole images alone, and why:
    whole_because: str = ""
    alignment: int = 1  # tiles begin at multiples of it
    bytes_per_lr_pixel: int | None = None  # values that are alive at a time
    layout: str = "NCHW RGB float32 [0,1]"
    version: int = VERSION

    def extended(self, **values: object) -> ModelSpec:
        return replace(self, **values)

    def to_json(self) -> dict:
        return asdict(self)

    def locality(self) -> Locality:
        hint = "make a bundle of it (darsr export --split)" if self.form == "network" else "use --tile 0"
        return Locality(self.halo, self.alignment, self.bytes_per_lr_pixel or 0, why=self.whole_because, hint=hint)

    @classmethod
    def from_json(cls, text: str, path: str) -> ModelSpec:
        """Parse metadata strictly.

        Raises:
            DarsrError: not made by this toolkit, or by another version of it.
        """
        try:
            values = json.loads(text)
            if values["version"] != VERSION:
                raise DarsrError(
                    path, f"has metadata version {values['version']}, this program reads {VERSION}", "export it again"
                )
            check_types(cls, values)
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise DarsrError(
                path, "does not hold the metadata of an exported model", "make one with darsr export"
            ) from error


def coefficients_path(model: str | Path) -> Path:
    """Where the coefficients of a model of form ``filters`` lie: ``photo.coeff.safetensors`` beside ``photo.onnx``."""
    return Path(model).with_suffix(".coeff.safetensors")


def declared_precision(data: bytes) -> str | None:
    """The precision that the bytes of an ONNX file name, for a file that a runtime cannot load and so cannot describe."""
    found = re.search(rb'"precision": "(\w+)"', data)
    return found.group(1).decode() if found else None
