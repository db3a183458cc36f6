"""Train the correction family: ``python -m darsr_train.training.family PHOTOS --out family-x2.safetensors``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.images.arrays import list_images

from ..adaptation.options import AdaptOptions
from ..backbones import load_backbone
from ..degradation.reduction import apply_kernels_by_fft
from ..networks.backprojection import BackProjection
from ..networks.darm import DARM
from ..networks.family import DarmFamily, load_family, save_family
from ..networks.image_error import negative_psnr
from ..networks.prior import load_prior
from .command import describe_training, make_parser, print_progress, read_options
from .crops.degraded import Degradations, DegradedCrops
from .loop import train

# Errors of estimated blurs, on the parts of the covariance's logarithm: the narrower a blur, the larger.
# kernels.random_near draws the rest of them.
_ERRORS = np.array([0.2, 0.12, 0.12])  # scale at a variance of 1
_FALL = np.array([0.7, 0.5, 0.5])  # of the scale's logarithm, for every unit of the width's
_MOST = np.array([0.45, 0.16, 0.16])
_TAILS = 4  # Student's t


@dataclass(frozen=True)
class FamilyTraining(Degradations):
    """Options of the family's training."""

    steps: int = 9000
    batch: int = 8
    patch: int = 104
    kernel: int = kernels.NEAR_SIDE
    noise_share: float = 0.1
    noise_sigma: float = 1.0
    jpeg_share: float = 0.05
    blurs: int = 2  # covariances of a step, which its crops share
    sets: int = 8
    hidden: int = 32
    rate: float = 5e-4
    least: float = 0.25  # variances, HR pixels squared
    most: float = 6.5
    other_shapes: float = 0.25  # of the kernels: uniform over a line or an ellipse instead of Gaussian
    enlarged: float = 0.0  # weight of the final image's error in the loss, for a last, shorter training (--family)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.blurs <= self.batch:
            raise ValueError(f"blurs is {self.blurs}; expected 1 to the batch of {self.batch}")
        if not 0 <= self.enlarged <= 1:
            raise ValueError(f"enlarged is {self.enlarged}; expected 0 <= enlarged <= 1")


class Group(NamedTuple):
    """Crops of about one blur; images in [0, 1]."""

    covariance: np.ndarray  # 2 x 2, order y, x, HR pixels squared
    degraded: Tensor  # N x 3 x patch x patch
    targets: Tensor  # the same, reduced bicubically instead
    hr: Tensor  # N x 3 x s patch x s patch


class BlurredCrops(DegradedCrops):
    """Crops in groups, each crop with a kernel near the covariance of its group."""

    def group(self, step: int, index: int) -> Group:
        """Return the crops of one group of a step."""
        o = self.options
        random = np.random.default_rng((o.seed, step, index))
        covariance = random_covariance(random, o.least, o.most)
        pairs = [self._pair(random, covariance) for _ in range(o.batch // o.blurs)]
        return Group(covariance, *(torch.cat(part) for part in zip(*pairs)))

    def _pair(self, random: np.random.Generator, covariance: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        scale = self.options.scale
        hr = torch.from_numpy(self.sharp(random)).permute(2, 0, 1)[None].float() / 255
        true = perturb_covariance(random, covariance)
        kernel = kernels.random_near(random, true, self.options.other_shapes)
        kernel = torch.from_numpy(kernel if scale == 2 else kernels.twice(kernel)).float()
        target, lr = apply_kernels_by_fft(hr, torch.stack([self.bicubic, kernel]), scale)
        first = (self.size - scale) // 2  # HR coordinate of the first LR pixel's corner
        window = slice(first, first + scale * self.options.patch)
        return self.sensor(lr, None, random), target, hr[..., window, window]


def random_covariance(random: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Draw a 2 x 2 covariance, order y, x: variances within the limits, half of them uniform in their logarithm."""
    if random.random() < 0.5:
        variances = random.uniform(least, most, 2)
    else:
        variances = np.exp(random.uniform(math.log(least), math.log(most), 2))
    angle = random.uniform(0, math.pi)
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return axes @ np.diag(variances) @ axes.T


def perturb_covariance(random: np.random.Generator, estimate: np.ndarray) -> np.ndarray:
    """Draw a true covariance that may be estimated as the given one."""
    parts = moments.logarithm(estimate)
    scale = np.minimum(_ERRORS * np.exp(-_FALL * parts[0]), _MOST)
    return moments.from_logarithm(parts + scale * random.standard_t(_TAILS, 3))


def train_family(
    images: Path,
    out: Path,
    options: FamilyTraining,
    start: DARM | DarmFamily,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict], None] = lambda _: None,
) -> DarmFamily:
    """Train a family on a folder of photographs.

    Args:
        start: the prior, which every member starts as, or a family to continue from.

    The other arguments, and what is raised, are :func:`.loop.train`'s.
    """
    torch.manual_seed(options.seed)
    crops = BlurredCrops(list_images(images), options)
    family = copy.deepcopy(start) if isinstance(start, DarmFamily) else DarmFamily(start, options.sets, options.hidden)
    family.requires_grad_(True)
    plain = DARM(channels=family.channels).eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    error = _enlarged_error(options, device) if options.enlarged else _corrected_error

    def loss_of(family: nn.Module, step: int) -> Tensor:
        losses = []
        for index in range(options.blurs):
            covariance, *images = crops.group(step, index)
            images = (image.to(device, memory_format=torch.channels_last) for image in images)
            group = Group(covariance, *images)
            with options.autocast(device):
                corrected = torch.func.functional_call(
                    plain, family.weights(family.vector(covariance)), (group.degraded,)
                )
            losses.append(error(corrected.float(), group))
        return torch.stack(losses).mean()

    return train(family, options, loss_of, out, None, device, resume, report)


def _corrected_error(corrected: Tensor, group: Group) -> Tensor:
    return (corrected - group.targets).abs().mean()


def _enlarged_error(options: FamilyTraining, device: str) -> Callable[[Tensor, Group], Tensor]:
    """Return the error of the final image, through the package's backbone and back-projection as in ``fast``.

    It is mixed with that of the corrected image, so that members suit other backbones too; both as minus the mean PSNR,
    since a wide blur's errors are ten times those of a narrow one.
    """
    backbone = load_backbone("edge", options.scale, device).module
    rounds = AdaptOptions.profile("fast", options.scale).rounds

    def error(corrected: Tensor, group: Group) -> Tensor:
        with options.autocast(device):
            sr = backbone(corrected)
        kernel = torch.from_numpy(kernels.estimated(group.covariance, options.scale)).float()
        sr = BackProjection(kernel, options.scale, rounds).to(device)(sr.float(), group.degraded)
        share = options.enlarged
        return share * negative_psnr(sr, group.hr) + (1 - share) * negative_psnr(corrected, group.targets)

    return error


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the networks that profile fast takes for a blur.", FamilyTraining)
    starts = parser.add_mutually_exclusive_group()
    starts.add_argument("--start", type=Path, help="a prior to start from (the package's own)")
    starts.add_argument("--family", type=Path, help="a family to go on from")
    given = parser.parse_args()
    options = read_options(given, FamilyTraining)
    start = load_family(options.scale, given.family) if given.family else load_prior(options.scale, given.start)
    trained = train_family(given.images, given.out, options, start, given.device, given.resume, report=print_progress)
    print(save_family(trained, given.out, describe_training(parser, given, "family"), torch.float16))


if __name__ == "__main__":
    main()
