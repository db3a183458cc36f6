"""The adapter file ``.darsr``: everything that was learned from one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .container import read_container, write_container
from .kinds import READ_SUFFIXES
from .schema import shorten

VERSION = 2
SUFFIX = ".darsr"
MOST_KERNEL_SIDE = 512  # pixels
_HINT = "make a new one with darsr adapt"
_FIELDS = {"correction": str, "scale": int, "backbone": str, "backbone_sha256": str, "facts": dict}
_CHOICES = {"correction": ("none", "global", "network"), "scale": (2, 4)}
_LONGEST = 200  # characters of a name, which may become that of a file
_RANKS = {"dictionary": 3, ".weight": 4, ".bias": 1}  # dimensions, by the end of an array's name


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
        rounds: rounds of back-projection by ``kernel`` after the backbone; 0 for none.
        modulation_sha256: sha256 of the file of the networks whose backbone it modulates by the arrays ``modulation.scale``
            and ``modulation.shift`` (one number a channel, layer by layer); empty for the frozen backbone.
    """

    correction: str
    scale: int
    backbone: str
    backbone_sha256: str
    facts: dict = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rounds: int = 0
    modulation_sha256: str = ""

    def save(self, path: str | Path, replace: bool = True) -> str:
        """Write the file, whole or not at all, and return its sha256: the same content gives the same bytes.

        Args:
            replace: False refuses a file that has appeared meanwhile.
        """
        own = {name: getattr(self, name) for name in _FIELDS}
        if self.rounds:
            own["backprojection"] = {"kernel": "kernel", "rounds": self.rounds}
        if self.modulation_sha256:
            own["modulation_sha256"] = self.modulation_sha256
        return write_container(path, "adapter", VERSION, own, self.arrays, replace=replace)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read and check an adapter.

        Raises:
            DarsrError: names the field or array that is unknown, missing, of a wrong type or shape, or not finite.
        """
        facts, arrays, _ = read_container(path, "adapter", VERSION, _HINT)
        try:
            for name, kind in _FIELDS.items():
                if name not in facts:
                    raise ValueError(f"field {name} is missing")
                if name in _CHOICES and facts[name] not in _CHOICES[name]:
                    *others, last = _CHOICES[name]
                    expected = f"{', '.join(map(str, others))} or {last}"
                    raise ValueError(f"field {name} is {shorten(facts[name])}, expected {expected}")
                if type(facts[name]) is not kind or (kind is str and len(facts[name]) > _LONGEST):
                    raise ValueError(f"field {name} is {shorten(facts[name])}, expected {kind.__name__}")
            modulation = facts.get("modulation_sha256", "")
            if type(modulation) is not str or len(modulation) > _LONGEST:
                raise ValueError(f"field modulation_sha256 is {shorten(modulation)}, expected str")
            own = {name: facts[name] for name in _FIELDS} | {"modulation_sha256": modulation}
            adapter = cls(**own, arrays=arrays, rounds=_rounds(facts.get("backprojection")))
            adapter._check_arrays()
        except ValueError as error:
            raise DarsrError(str(path), str(error), _HINT) from error
        return adapter

    def darm_arrays(self) -> dict[str, np.ndarray]:
        """Return the correction network's tensors, by the names of DARM's state."""
        return {name.removeprefix("darm."): array for name, array in self.arrays.items() if name.startswith("darm.")}

    def _check_arrays(self) -> None:
        if self.correction == "global" and self.arrays.get("taps", np.empty(0)).shape != (13,):
            raise ValueError("array taps is missing or not of 13 values")
        if self.correction == "network" and not self.darm_arrays():
            raise ValueError("the correction network's arrays are missing")
        for name, array in self.arrays.items():
            rank = next((rank for end, rank in _RANKS.items() if name.endswith(end)), array.ndim)
            if array.ndim != rank or not array.size or array.dtype != np.float32:
                found = f"{array.dtype} of shape {array.shape}"
                raise ValueError(f"array {shorten(name)[1:-1]} is {found}, expected float32 with {rank} dimensions")
        scale, shift = (self.arrays.get(f"modulation.{name}", np.empty((0, 0))).shape for name in ("scale", "shift"))
        if self.modulation_sha256 and (len(scale) != 1 or scale != shift):
            raise ValueError("arrays modulation.scale and modulation.shift are missing or not of one length")
        side = self.arrays.get("kernel", np.empty(0)).shape
        if self.rounds and (len(side) != 2 or side[0] != side[1] or side[0] % 2):
            raise ValueError(f"array kernel is {side}, back-projection needs a square of even side")
        if side and max(side) > MOST_KERNEL_SIDE:
            raise ValueError(f"array kernel is {side}, expected sides up to {MOST_KERNEL_SIDE}")


def _rounds(backprojection: object) -> int:
    if backprojection is None:
        return 0
    facts = backprojection if isinstance(backprojection, dict) else {}
    rounds = facts.get("rounds")
    if type(rounds) is not int or not 1 <= rounds <= 100 or facts.get("kernel") != "kernel":
        raise ValueError(f"field backprojection is {shorten(backprojection)}, expected a kernel and 1 to 100 rounds")
    return rounds


def adapter_path(image: str | Path) -> Path:
    """Return where the adapter of an image lies: ``photo.darsr``, or ``photo.png.darsr`` beside another ``photo.*`` image."""
    image = Path(image)
    # compared by name, not by glob: a name may hold [ or *
    twins = (
        [
            p
            for p in image.parent.iterdir()
            if p.stem == image.stem and p.name != image.name and p.suffix.lower() in READ_SUFFIXES
        ]
        if image.parent.is_dir()
        else []
    )
    return image.with_name(image.name + SUFFIX) if twins else image.with_suffix(SUFFIX)
