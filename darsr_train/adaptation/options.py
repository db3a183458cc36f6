"""Options of an adaptation, frozen and checked in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from darsr_deploy.adaptation.adapt import LEAST_SIDE, ROUNDS
from darsr_deploy.blind.judgement import Wishes

FIT_STEPS = 80  # of the fast fit where it is wanted and no number is given
DSEM_STEPS = (
    300  # of fewer steps than published: its rate, halved every 100, leaves 7 eighths of its way behind by then
)
THOROUGH_STEPS = 600  # of the fit: 1000 gain less than 0.1 dB more


@dataclass(frozen=True)
class AdaptOptions:
    """How one image is adapted; start from a profile: ``AdaptOptions.profile("fast", scale=2)``."""

    name: str = "fast"
    scale: int = 2
    seed: int = 0
    steps: int = 0  # of the per-image fit
    budget: float | None = None  # fast only: seconds of work; the steps follow from it
    amount: float = 1.0  # fast only: the blur is taken as so many times the variance that was estimated
    denoise: float = 1.0  # fast only: share of the noise that was found to take away, 0 to 1
    deblock: float = 1.0  # fast only: share of the compression that was found to take away, 0 to 1
    batch: int = 4  # crops a step
    crop: int = 64  # side of an LR crop in pixels
    rate: float = 3e-4  # Adam's learning rate for DARM, falling linearly to 0
    family: bool = True  # fast only: start from the network for the estimated blur, not from the prior
    references: int = 96  # fast only: blurred reference crops that the fit draws from
    rounds: int = ROUNDS  # fast only: of back-projection
    augment: bool = False  # flip and transpose the crops of unknown blur, as the reference program does
    bicubic_gate: float = 0.4  # paper only: the bicubic weight may fall once the term was below this three times
    dsem_steps: int = 0  # paper only: steps of the degradation score's training

    def __post_init__(self) -> None:
        if self.scale not in (2, 4):
            raise ValueError(f"scale is {self.scale}; expected 2 or 4")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget is {self.budget}; expected more than 0 seconds")
        Wishes(self.amount, self.denoise, self.deblock)
        for field, default in (("budget", None), ("amount", 1.0), ("denoise", 1.0), ("deblock", 1.0)):
            if getattr(self, field) != default and self.name != "fast":
                raise ValueError(f"{field} belongs to profile fast, and the profile is {self.name}")
        for field, least in (("seed", 0), ("steps", 0), ("batch", 1), ("crop", 1), ("references", 1), ("rounds", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} is {getattr(self, field)}; expected at least {least}")
        if self.name == "paper" and self.crop < 16:
            raise ValueError(f"crop is {self.crop}; expected at least 16 with profile paper, whose kernel has 13 taps")

    @classmethod
    def profile(cls, name: str, scale: int = 2, **changes: object) -> AdaptOptions:
        """Return the options of a named profile.

        * ``fast``: seconds on two CPU cores; the default.
        * ``thorough``: half a minute on two CPU cores; a kernel of free shape, and networks fitted to it.
        * ``paper``: the published procedure, 3000 steps of DSEM and 3000 of adaptation, batch 16: hours on a GPU,
          about a day on a CPU. With fewer ``steps`` the schedule keeps its shape, and DSEM gets at most 300.

        Raises:
            ValueError: unknown profile, or a value out of range.
        """
        profiles = {
            "fast": cls(scale=scale),
            "thorough": cls("thorough", scale, steps=THOROUGH_STEPS, batch=8, crop=32, rate=3e-4, rounds=1),
            "paper": cls(
                "paper",
                scale,
                steps=3000,
                batch=16,
                crop=128 // scale,
                rate=1e-3,
                augment=True,
                bicubic_gate=0.005,
                dsem_steps=3000,
                family=False,
            ),
        }
        if name not in profiles:
            raise ValueError(f"profile is {name!r}; expected one of {', '.join(profiles)}")
        given = {k: v for k, v in changes.items() if v is not None}
        if name == "paper" and given.get("steps", 3000) < 3000:
            given = {"dsem_steps": min(given["steps"], DSEM_STEPS)} | given
        return replace(profiles[name], **given)

    def fits(self) -> bool:
        """Return whether a network is fitted to the image's blur."""
        return self.steps > 0 or self.budget is not None

    def least_side(self) -> int:
        """Return the minimum width and height of an image, in pixels."""
        if self.name == "paper":
            return (
                self.crop * self.scale + 20
            )  # a crop that plays the HR, 128 px as published, and 10 px on each border
        return LEAST_SIDE

    def to_json(self) -> dict:
        """Return the options as JSON values, as an adapter records them."""
        return asdict(self)
