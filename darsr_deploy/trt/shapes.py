"""The image sizes an engine is built for: one optimization profile of least, usual and largest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..engines.base import LEAST_SIDE
from ..errors import DarsrError
from ..files.model_spec import ModelSpec
from ..files.schema import make_dataclass

_SIZE = re.compile(r"(\d+)x(\d+)")
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Shapes:
    """Heights and widths in pixels of the small image; the batch is 1."""

    min: Size
    opt: Size
    max: Size

    @property
    def static(self) -> bool:
        """Return whether there is one size only."""
        return self.min == self.max

    def holds(self, height: int, width: int) -> bool:
        """Return whether an image of this size lies within the profile."""
        return all(low <= side <= high for low, side, high in zip(self.min, (height, width), self.max))

    def to_json(self) -> list[list[int]]:
        """Return three pairs of height and width."""
        return [list(size) for size in (self.min, self.opt, self.max)]

    @classmethod
    def from_json(cls, sizes: Any, path: str) -> Shapes:
        """Return the shapes that :meth:`to_json` made.

        Raises:
            DarsrError: it made something else.
        """
        try:
            smallest, optimal, largest = sizes
            return make_dataclass(cls, {"min": smallest, "opt": optimal, "max": largest})
        except (TypeError, ValueError) as error:
            raise DarsrError(path, "field shapes is not three sizes", "build the engine again") from error

    def __str__(self) -> str:
        """Return it as it is typed: ``160x240``, or ``3x3,480x640,1920x1920``."""
        sizes = (self.min,) if self.static else (self.min, self.opt, self.max)
        return ",".join(f"{height}x{width}" for height, width in sizes)


def input_shape(name: str, declared: tuple[int, ...], size: Size, scale: int, graph: str = "") -> tuple[int, ...]:
    """Return the shape of a network's input for an LR image of one size; the batch is 1.

    Args:
        name: of the input: ``sr`` is of the large image, the others that vary of the small one.
        declared: its shape, -1 where it varies.
        graph: of a runtime bundle. Its ``filter`` takes one set of coefficients for all pixels.
    """
    factor = scale if name == "sr" else 1
    varying = (1, None, *((1, 1) if (graph, name) == ("filter", "coeff") else (factor * side for side in size)))
    return tuple(varying[axis] if side == -1 else side for axis, side in enumerate(declared))


# One engine for every photograph up to Full HD either way round, so that no change of size builds another. Activations
# are reserved for the size that runs, not for the largest.
DEFAULT_SHAPES = Shapes((LEAST_SIDE, LEAST_SIDE), (480, 640), (1920, 1920))


def fixed_shapes(spec: ModelSpec) -> Shapes | None:
    """Return the one size of a model of form ``filters``, whose coefficients belong to their pixels; None of another."""
    if spec.form != "filters" or spec.source_height is None or spec.source_width is None:
        return None
    size = (spec.source_height, spec.source_width)
    return Shapes(size, size, size)


def parse_shapes(shape: str | None, shapes: str | None) -> Shapes | None:
    """Parse ``--shape HxW`` or ``--shapes MIN,OPT,MAX``; None where neither is given.

    Raises:
        DarsrError: no sizes, both options, sides under 3, or sizes that do not grow.
    """
    if shape is not None and shapes is not None:
        raise DarsrError("--shape", "cannot be given together with --shapes", "give only one of them")
    given, option, count = (shape, "--shape", 1) if shapes is None else (shapes, "--shapes", 3)
    if given is None:
        return None
    found = [_SIZE.fullmatch(part.strip()) for part in given.split(",")]
    sizes = [(int(match[1]), int(match[2])) for match in found if match]
    if len(sizes) != count or len(found) != count:
        example = "160x240" if count == 1 else "16x16,480x640,1080x1920"
        raise DarsrError(f"{option} {given}", f"is not {count} size{'s' * (count > 1)} HxW", f"write it as {example}")
    profile = Shapes(sizes[0], sizes[count // 2], sizes[-1])
    if min(profile.min) < LEAST_SIDE:
        raise DarsrError(f"{option} {given}", f"has a side under {LEAST_SIDE} pixels", "give larger sizes")
    if any(not low <= mid <= high for low, mid, high in zip(*sizes)) if count == 3 else False:
        raise DarsrError(f"{option} {given}", "does not grow from least to largest", "order them MIN,OPT,MAX")
    return profile
