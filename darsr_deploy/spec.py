"""What a model file says of itself: the contract of its input and output, its origin, its measured parity."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from .errors import DarsrError

METADATA_KEY = "darsr"  # in ONNX's metadata_props
VERSION = 1


@dataclass(frozen=True)
class ModelSpec:
    """Metadata of an exported model.

    Input ``lr``: float32 N x 3 x H x W, RGB in [0, 1], sides of at least 3. Output ``sr``: float32 N x 3 x sH x sW,
    RGB in [0, 1].
    """

    scale: int
    form: str = "network"  # none | global | network: what stands before the backbone
    precision: str = "fp32"
    backbone: str = ""
    backbone_sha256: str = ""
    adapter_sha256: str = ""
    opset: int = 18
    parity_psnr_db: float | None = None
    layout: str = "NCHW RGB float32 [0,1]"
    version: int = VERSION

    def with_parity(self, decibels: float) -> ModelSpec:
        return replace(self, parity_psnr_db=round(decibels, 2))

    def to_json(self) -> dict:
        return asdict(self)

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
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise DarsrError(
                path, "does not hold the metadata of an exported model", "make one with darsr export"
            ) from error
