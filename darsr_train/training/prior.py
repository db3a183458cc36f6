"""Train the prior, for many degradations: ``python -m darsr_train.training.prior PHOTOS --out prior-x2.safetensors``.

The target of a degraded crop (see :mod:`.crops.degraded`) is the same crop reduced bicubically. A second, shorter
training may go through a frozen backbone to the HR crop itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from darsr_deploy.images.arrays import list_images

from ..backbones import load_backbone
from ..networks.darm import DARM
from ..networks.prior import load_prior, near_identity, save_prior
from .command import describe_training, make_parser, print_progress, read_options
from .crops.degraded import Degradations, DegradedCrops
from .loop import train


@dataclass(frozen=True)
class PriorTraining(Degradations):
    """Options of the prior's training.

    On one core of an Intel Xeon with AMX and bf16, a step takes about 0.15 s at x2.
    """

    steps: int = 30_000
    batch: int = 6
    patch: int = 112  # pooled attention needs crops that show the blur
    channels: int = 32


def train_prior(
    images: Path,
    out: Path,
    options: PriorTraining,
    device: str = "cpu",
    resume: bool = False,
    start: DARM | None = None,
    backbone: nn.Module | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[dict], None] = lambda _: None,
) -> DARM:
    """Train a prior on a folder of photographs.

    Args:
        start: weights to start from; else a network that nearly returns its input.
        backbone: frozen; adds the error of the super-resolved crop to the loss.

    The other arguments, and what is raised, are :func:`.loop.train`'s.
    """
    torch.manual_seed(options.seed)
    crops = DegradedCrops(list_images(images), options)

    def loss_of(model: nn.Module, step: int) -> Tensor:
        degraded, target, hr = (t.to(device, memory_format=torch.channels_last) for t in crops.batch(step))
        with options.autocast(device):
            corrected = model(degraded)
            sr = backbone(corrected) if backbone is not None else None
        loss = (corrected.float() - target).abs().mean()
        if sr is not None:
            # the root of each crop's MSE: between PSNR, which counts crops alike, and MSE, which sees only the hard
            # ones
            loss = loss + (sr.float() - hr).square().mean((1, 2, 3)).add(1e-6).sqrt().mean()
        return loss

    model = copy.deepcopy(start).requires_grad_(True) if start is not None else near_identity(options.channels)
    return train(model, options, loss_of, out, validate, device, resume, report)


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the prior that profile fast starts from.", PriorTraining)
    parser.add_argument("--start", type=Path, help="a prior to go on from")
    parser.add_argument("--backbone", help="name or file: train through this frozen backbone as well")
    given = parser.parse_args()
    options = read_options(given, PriorTraining)
    start = load_prior(options.scale, given.start) if given.start else None
    backbone = load_backbone(given.backbone, options.scale, given.device).module if given.backbone else None
    prior = train_prior(
        given.images, given.out, options, given.device, given.resume, start, backbone, report=print_progress
    )
    print(save_prior(prior, given.out, describe_training(parser, given, "prior")))


if __name__ == "__main__":
    main()
