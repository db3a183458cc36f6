"""The adapter file ``.darsr``: everything that was learned from one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .container import read_container, write_container
from .kinds import IMAGE_SUFFIXES

VERSION = 2
SUFFIX = ".darsr"
_HINT = "make a new one with darsr adapt"


@dataclass(frozen=True)
class Adapter:
    """A correction for images of one camera and blur.

    Attributes:
        correction: ``none`` (the backbone alone is best), ``global`` (one 5x5 filter: array ``taps``, 13) or
            ``network`` (DARM: arrays ``darm.*``).
        scale: 2 or 4.
        backbone: name of the backbone it was fitted through, and the sha256 of its weight file.
        facts: everything else, as JSON values: profile, options, seed, steps, chosen, kernel_sum, source, versions.
        arrays: float32; beside the correction's, ``kernel`` (k x k, the estimated degradation).
        rounds: of back-projection by ``kernel`` after the backbone; 0 for none.
    """

    correction: str
    scale: int
    backbone: str
    backbone_sha256: str
    facts: dict = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rounds: int = 0

    def save(self, path: str | Path) -> str:
        """Write the file, whole or not at all; returns its sha256. Same content, same bytes."""
        own = {
            "correction": self.correction,
            "scale": self.scale,
            "backbone": self.backbone,
            "backbone_sha256": self.backbone_sha256,
        }
        if self.rounds:
            own["backprojection"] = {"kernel": "kernel", "rounds": self.rounds}
        return write_container(path, "adapter", VERSION, {**own, "facts": self.facts}, self.arrays)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read and check an adapter.

        Raises:
            DarsrError: names the field that is unknown, missing, of a wrong shape or not finite.
        """
        facts, arrays, _ = read_container(path, "adapter", VERSION, _HINT)
        try:
            adapter = cls(
                facts["correction"],
                facts["scale"],
                facts["backbone"],
                facts["backbone_sha256"],
                facts["facts"],
                arrays,
                _rounds(facts.get("backprojection"), path),
            )
        except KeyError as error:
            raise DarsrError(str(path), f"field {error.args[0]} is missing", _HINT) from error
        adapter._check(path)
        return adapter

    def darm_arrays(self) -> dict[str, np.ndarray]:
        """The tensors of the correction network, by the names of DARM's state."""
        return {name.removeprefix("darm."): array for name, array in self.arrays.items() if name.startswith("darm.")}

    def _check(self, path: str | Path) -> None:
        for name, kind in (("backbone", str), ("backbone_sha256", str), ("facts", dict)):
            if not isinstance(getattr(self, name), kind):
                raise DarsrError(str(path), f"field {name} is {getattr(self, name)!r}, expected {kind.__name__}", _HINT)
        if self.scale not in (2, 4):
            raise DarsrError(str(path), f"field scale is {self.scale}, expected 2 or 4", _HINT)
        if self.correction == "global" and self.arrays.get("taps", np.empty(0)).shape != (13,):
            raise DarsrError(str(path), "array taps is missing or not of 13 values", _HINT)
        if self.correction == "network" and not self.darm_arrays():
            raise DarsrError(str(path), "the correction network's arrays are missing", _HINT)
        side = self.arrays.get("kernel", np.empty(0)).shape
        if self.rounds and (len(side) != 2 or side[0] != side[1] or side[0] % 2):
            raise DarsrError(str(path), f"array kernel is {side}, back-projection needs a square of even side", _HINT)
        if self.correction not in ("none", "global", "network"):
            raise DarsrError(
                str(path), f"field correction is {self.correction!r}, expected none, global or network", _HINT
            )


def _rounds(backprojection: object, path: str | Path) -> int:
    if backprojection is None:
        return 0
    rounds = backprojection.get("rounds") if isinstance(backprojection, dict) else None
    if not isinstance(rounds, int) or not 1 <= rounds <= 100 or backprojection.get("kernel") != "kernel":
        raise DarsrError(
            str(path), f"field backprojection is {backprojection!r}, expected a kernel and 1 to 100 rounds", _HINT
        )
    return rounds


def adapter_path(image: str | Path) -> Path:
    """Where the adapter of an image lies: ``photo.darsr``, or ``photo.png.darsr`` where another ``photo.*`` stands beside it."""
    image = Path(image)
    # compared by name, not by glob: a name may hold [ or *
    twins = (
        [
            p
            for p in image.parent.iterdir()
            if p.stem == image.stem and p.name != image.name and p.suffix.lower() in IMAGE_SUFFIXES
        ]
        if image.parent.is_dir()
        else []
    )
    return image.with_name(image.name + SUFFIX) if twins else image.with_suffix(SUFFIX)
