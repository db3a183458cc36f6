"""What the networks are told of an image, from everything that looks at it.

Overestimating a clean image's blur costs more PSNR than underestimating it; overestimating noise costs next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..degradation import covariance as moments
from ..degradation.condition import LOSSLESS, Condition
from ..images.arrays import to_tensor
from . import shape
from .analysis import analysis_windows, smooth_over_drawings, split_in_thirds, trim_borders
from .blur import estimate_covariance
from .camera_traces import log_odds
from .compression import estimate_quality
from .enlargement import estimate_enlargement
from .estimator import Found, read_output

_CLEAN_QUALITY = 90.0  # of JPEG, from which the closed form was trained
_LEAST_NOISE = 1.0  # grey levels that a clean image's texture is taken for
_NO_BLUR = 0.4  # mean variance in HR pixels squared up to which a blur is worth less than its estimate's error costs
_UNBLURRED = 0.6  # probability above which an image counts as only reduced
_WIDER = 0.4  # standard deviations that such an image's blur is taken wider by: guesses lean to the average
_CAUTION = 0.5  # standard deviations that the guess at a clean image's blur is taken narrower by
_SURE_NOISE = 0.5  # standard deviations that noise must exceed the least one by, in a picture that was not compressed
_GENEROUS = 0.6  # standard deviations that noise is taken stronger by
_SUSPICIOUS = 0.3  # by which a guess at the logarithm of the variance must exceed what is measured
_SURELY = 0.1  # probability of no blur below which an image surely has one
_SURELY_BLURRED = math.log(0.6)
_SURELY_WIDE = 0.3  # logarithm of the variance below which a soft scene may be taken for a wider blur by its spectrum
_CAMERA_BLUR = 0.6  # variance, HR pixels squared, that a camera's own processing leaves
_CAMERA_SHARE = 0.6  # of a blur's variance that its processing has left to be undone
_CAMERA_SOFT = 1.15  # enlargement that it is as soft as
_CAMERA_ENLARGED = 1.5


class Networks(Protocol):
    """The two networks that look at an image; both take float32 1 x 3 x H x W in [0, 1]."""

    def estimate(self, lr: np.ndarray) -> np.ndarray:
        """Return the estimator's 16 numbers, as :func:`.estimator.read_output` takes them."""

    def restore(self, lr: np.ndarray) -> np.ndarray:
        """Return what the prior and the frozen backbone make of it: 1 x 3 x sH x sW, not clipped."""


@dataclass(frozen=True)
class Wishes:
    """What somebody wants instead of what was found.

    Attributes:
        amount: the blur is taken as so many times the variance that was estimated, 0.1 to 4.
        denoise, deblock: shares of the noise and of the compression to take away, 0 to 1.

    Raises:
        ValueError: out of range.
    """

    amount: float = 1.0
    denoise: float = 1.0
    deblock: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.amount <= 4:
            raise ValueError(f"amount is {self.amount}; expected 0.1 to 4")
        for field in ("denoise", "deblock"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} is {getattr(self, field)}; expected 0 to 1")


@dataclass(frozen=True)
class Findings:
    """What everything that looks at an image says of it.

    Attributes:
        guess: of the estimator network.
        quality: of JPEG; :data:`LOSSLESS` for none.
        enlarged: the factor by which it was enlarged before; 1 for not.
        treated: probability that a camera's treatment, noise or compression shows.
        measured: covariance of a clean image's blur in closed form, :data:`LEAST` on both axes where there is none; None
            for an image that is not clean.
    """

    guess: Found
    quality: float
    enlarged: float
    treated: float
    measured: np.ndarray | None

    @property
    def regime(self) -> str:
        """Return which networks know such an image, ``clean`` or ``wild``."""
        return "wild" if self.measured is None else "clean"

    @property
    def clean(self) -> bool:
        """Return whether blur is all that could have happened, so that the closed form may measure it."""
        untreated = self.treated <= 0.5 or not (self.noise or self.camera)
        return untreated and self.quality >= _CLEAN_QUALITY and self.enlarged == 1

    @property
    def noise(self) -> float:
        """Return the standard deviation in grey levels, rather too much than too little; 0 where it may be texture."""
        noise, doubt = self.guess.condition.noise, 10 * self.guess.doubt["noise"]
        sure = noise if self.quality < LOSSLESS else noise - _SURE_NOISE * doubt
        return noise + _GENEROUS * doubt if self.treated > 0.5 and sure > _LEAST_NOISE else 0.0

    @property
    def camera(self) -> bool:
        """Say whether there is a camera's treatment, and neither noise nor compression that would explain it."""
        photograph = self.guess.unblurred < 0.3 and self.guess.drawn < 0.3
        return photograph and self.treated > 0.5 and not self.noise and self.quality >= LOSSLESS


@dataclass(frozen=True)
class Judgement:
    """What the networks are told of an image, and why.

    Attributes:
        found: the estimates, as facts of an adapter: ``blur_px, noise, jpeg_quality, enlarged_before, graphics, camera``.
        condition: None where nothing is to be corrected.
        chosen: ``none`` or ``told``.
        sentence: both in words, for people.
    """

    found: dict
    condition: Condition | None
    chosen: str
    sentence: str


def examine(pixels: np.ndarray, networks: Networks, scale: int, jpeg_quality: float | None = None) -> Findings:
    """Look at an image (uint8, H x W or H x W x 3, sides of at least 32).

    Args:
        networks: what the prior and the backbone make of the image tells a clean one's blur.
        jpeg_quality: what a JPEG file's own tables say; None for other files.
    """
    windows = analysis_windows(pixels)
    outputs = np.sort([networks.estimate(to_tensor(window)) for window in windows], axis=0)
    guess = read_output(outputs[len(windows) // 2], scale)  # the median: they are an odd number
    quality = jpeg_quality or estimate_quality(windows[0]) or LOSSLESS
    treated = 1 / (1 + math.exp(-log_odds(windows[0])))
    findings = Findings(guess, quality, estimate_enlargement(trim_borders(pixels), scale), treated, None)
    if not findings.clean:
        return findings
    width = moments.logarithm(guess.condition.covariance)[0] if guess.unblurred < _SURELY else None
    return replace(findings, measured=measure_blur(smooth_over_drawings(windows[0]), networks, scale, width))


def measure_blur(pixels: np.ndarray, networks: Networks, scale: int, width: float | None = None) -> np.ndarray:
    """Return the covariance of a clean image's blur in closed form: 2 x 2, order y, x, HR pixels squared.

    Args:
        width: what the estimator guesses, as logarithm of the variance. Where it is much wider than what is measured, a
            caption may have made the image sharp: then its thirds are measured too, and their median is taken if wider.
    """
    y = to_tensor(pixels)
    whole = _with_shape(networks.restore(y).clip(0, 1), y, scale)
    if width is None or width - moments.logarithm(whole)[0] < _SUSPICIOUS:
        return whole
    medians = [_median([measure_blur(part, networks, scale) for part in parts]) for parts in split_in_thirds(pixels)]
    return max([whole, *medians], key=lambda found: moments.logarithm(found)[0])


def _with_shape(x: np.ndarray, y: np.ndarray, scale: int) -> np.ndarray:
    """Return the closed form's estimate and that of the blur's shape, in the middle of their logarithms: each errs on its own."""
    closed_form = estimate_covariance(x, y, scale)
    unblurred = np.trace(closed_form) / 2 < _NO_BLUR
    if scale != 2 or unblurred or min(y.shape[-2:]) < shape.LEAST_SIDE:
        return closed_form
    first = moments.logarithm(closed_form)
    change = (moments.logarithm(moments.covariance_of(shape.estimate_kernel(x, y), scale)) - first) / 2
    if first[0] < _SURELY_WIDE:
        change[0] = min(change[0], 0)
    return moments.from_logarithm(first + change)


def _median(covariances: list[np.ndarray]) -> np.ndarray:
    return sorted(covariances, key=lambda found: moments.logarithm(found)[0])[len(covariances) // 2]


def judge(findings: Findings, wishes: Wishes | None = None) -> Judgement:
    """Decide what the networks are told."""
    wishes = wishes or Wishes()
    covariance, enlarged, treated = judge_blur(findings), findings.enlarged, 0.0
    if enlarged > 1:  # what was resampled has no blur of its own that could be told apart
        covariance = (_CAMERA_BLUR if findings.camera else moments.LEAST) * np.eye(2)
        enlarged, treated = max(enlarged, _CAMERA_ENLARGED), 1.0 if findings.camera else 0.5
    elif findings.camera:
        covariance = moments.scaled(findings.guess.condition.covariance, _CAMERA_SHARE)
        enlarged, treated = _CAMERA_SOFT, 1.0
    unblurred = np.trace(covariance) / 2 < _NO_BLUR
    told = Condition(
        covariance=covariance if wishes.amount == 1 else moments.scaled(covariance, wishes.amount),
        noise=wishes.denoise * findings.noise,
        quality=LOSSLESS if findings.regime == "clean" else LOSSLESS - wishes.deblock * (LOSSLESS - findings.quality),
        treated=treated,
        enlarged=enlarged,
    )
    facts = {
        "blur_px": 0.0 if unblurred else round(float(np.sqrt(np.trace(covariance) / 2)), 2),
        "noise": round(findings.noise, 1),
        "jpeg_quality": None if findings.quality >= LOSSLESS else round(findings.quality),
        "enlarged_before": round(findings.enlarged, 1),
        "camera": findings.camera,
        "graphics": findings.guess.drawn > 0.5,
    }
    if told.is_clean() and unblurred and wishes.amount == 1:
        return Judgement(facts, None, "none", "sharp already: nothing to correct")
    return Judgement(facts, told, "told", _sentence(facts))


def judge_blur(findings: Findings) -> np.ndarray:
    """Return the covariance that the estimates speak for, on the side of too little."""
    guess, measured = findings.guess, findings.measured
    doubt = guess.doubt["width"]
    cautious = moments.scaled(guess.condition.covariance, math.exp(-_CAUTION * doubt))
    none = moments.LEAST * np.eye(2)
    if measured is None:
        wider = moments.scaled(guess.condition.covariance, math.exp(_WIDER * doubt))
        return none if guess.unblurred > _UNBLURRED else wider
    width = moments.logarithm(guess.condition.covariance)[0]
    if np.trace(measured) / 2 < _NO_BLUR:
        # What was drawn over a picture looks sharp to the closed form; the network has learned to look past it.
        return cautious if guess.unblurred < _SURELY and width - doubt > _SURELY_BLURRED else none
    return none if guess.unblurred > _UNBLURRED else measured


def _sentence(facts: dict) -> str:
    parts = []
    if facts["enlarged_before"] > 1:
        parts.append(f"was enlarged about {facts['enlarged_before']:g}x before")
    elif facts["camera"]:
        parts.append("processed by its camera")
    elif facts["blur_px"]:
        parts.append(f"blur of {facts['blur_px']:.1f} px")
    if facts["noise"]:
        parts.append(f"noise {facts['noise']:.0f}")
    if facts["jpeg_quality"]:
        parts.append(f"JPEG {facts['jpeg_quality']}")
    return f"{', '.join(parts)}: corrected"
