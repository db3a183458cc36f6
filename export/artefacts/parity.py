"""The parity check: no file is written unless it computes what PyTorch computes in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import FLOORS_DB  # lives where devices find it, is used from here
from darsr_deploy.images.detail import find_detailed_crops
from darsr_deploy.images.metrics import psnr
from darsr_deploy.images.synthetic import natural_noise

from ..folding.forms import Formed
from ..onnx_graphs.precision import LOW_TYPES
from ..samples import Samples

SIZES = ((48, 64), (61, 75))  # two sizes, one of them odd
_CROPS = 2  # of the photo, at each size
# Headroom for images that were not tried.
_HEADROOM = 4
_MAX_VALUE = {"float16": 65504.0, "bfloat16": 3.39e38}
_TYPICAL_QUALITY_DB = 30.0  # of a super-resolved photograph against its truth


@dataclass(frozen=True)
class Case:
    """One test picture: 1 x 3 x H x W, its coefficients (form ``filters`` alone), and the expected output."""

    lr: np.ndarray
    coefficients: np.ndarray | None
    expected: np.ndarray

    def feeds(self) -> dict[str, np.ndarray]:
        """Return the inputs by name."""
        return {"lr": self.lr} | ({} if self.coefficients is None else {"coeff": self.coefficients})


def cases(formed: Formed, samples: Samples) -> list[Case]:
    """Make test pictures at two sizes: synthetic ones and, if the adapted image is available, its most detailed crops."""
    pictures = []
    for height, width in SIZES:
        if formed.coefficients is None:
            pictures.append((natural_noise(height, width), None))
            if samples.photo is not None:
                pictures += [(crop, None) for crop in find_detailed_crops(samples.photo, height, width, _CROPS)]
        else:  # coefficients belong to their pixels: crop both alike
            both = np.concatenate([samples.photo, formed.coefficients], axis=1)
            crops = find_detailed_crops(both, height, width, _CROPS)
            pictures += [(np.ascontiguousarray(c[:, :3]), np.ascontiguousarray(c[:, 3:])) for c in crops]
    return [Case(lr, coefficients, formed.run(lr, coefficients)) for lr, coefficients in pictures]


def parity_db(model: str | Path, tests: list[Case], precision: str = "fp32") -> float:
    """Return the worst PSNR in dB between a file and PyTorch: 200 if equal, 0 for NaN.

    Measured in ONNX Runtime (CPU); ``fp16`` and ``bf16`` also at true precision (see :mod:`.reference`), and
    ``bf16``, which that provider does not have, there alone.

    Raises:
        DarsrError: a value of a narrow type comes too near to the largest number of that type.
    """
    figures = []
    if precision != "bf16":
        for test in tests:
            with OrtEngine(model, coefficients=test.coefficients) as engine:
                figures.append(figure(engine.run(test.lr), test.expected))
    if precision in LOW_TYPES:
        from .reference import evaluate

        proto = onnx.load(model)
        for test in tests:
            result = evaluate(proto, test.feeds())
            require_headroom(precision, result.peaks)
            figures.append(figure(result.sr, test.expected))
    return min(figures)


def require_headroom(precision: str, peaks: dict[str, float]) -> None:
    """Refuse a model whose values come too close to the largest number of a narrow type.

    Args:
        peaks: largest magnitudes, by type.
    """
    for name, peak in peaks.items():
        if name in _MAX_VALUE and peak > _MAX_VALUE[name] / _HEADROOM:
            raise DarsrError(
                f"precision {precision}",
                f"a value of this model reaches {peak:.3g}, and {name} ends at {_MAX_VALUE[name]:.3g}",
                "use --precision bf16 or fp32",
            )


def measured_parity(model: str | Path, tests: list[Case], precision: str, target: Path) -> float:
    """Measure :func:`parity_db` of a file that will become ``target``.

    Raises:
        DarsrError: it runs only at some sizes. The line holds the target's name.
    """
    try:
        return parity_db(model, tests, precision)
    except DarsrError as error:
        if not str(error).startswith(f"{model}: "):  # it says itself what is wrong and what to do
            raise
        why = str(error).removeprefix(f"{model}: ").partition("; ")[0]
        raise DarsrError(
            str(target), f"the exported model does not work, so nothing was written ({why})", "use --engine torch"
        ) from error


def require_floor(measured: float, precision: str, target: Path, floor_db: float) -> None:
    """Refuse a file whose PSNR against PyTorch, ``measured`` in dB, is below the minimum."""
    if measured < floor_db:
        raise DarsrError(
            str(target),
            f"the exported model differs from PyTorch: {measured:.1f} dB, at least {floor_db:.1f} dB are required, so nothing was written",
            _hint(measured, precision, floor_db),
        )


def _hint(measured: float, precision: str, floor_db: float) -> str:
    if measured >= FLOORS_DB[precision]:
        return f"leave out --floor, or lower it: the usual one for {precision} is {FLOORS_DB[precision]:.0f} dB"
    if precision == "fp32":
        return "report this, or accept it with a lower --floor"
    return f"accept it with a lower --floor (about {expected_loss_db(measured):.2f} dB of quality)"


def expected_loss_db(parity: float, quality: float = _TYPICAL_QUALITY_DB) -> float:
    """Return the PSNR lost by a model of that quality through an independent error of ``parity``; all in dB.

    The squared errors add: 10 log10(1 + 10^((quality - parity) / 10)); 0.2 dB for 43 dB at the usual 30 dB.
    """
    return 10 * math.log10(1 + 10 ** ((quality - parity) / 10))


def figure(got: np.ndarray, expected: np.ndarray) -> float:
    """Return the PSNR in dB: 200 if equal, 0 for NaN."""
    return min(psnr(got, expected, peak=1.0), 200.0) if np.isfinite(got).all() else 0.0
