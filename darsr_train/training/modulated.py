"""Training of the networks that are told the degradation: ``python -m darsr_train.training.modulated PHOTOS --out modulated-x2.safetensors``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from darsr_deploy.degradation import kernels
from darsr_deploy.images.arrays import list_images

from ..backbones import load_backbone
from ..blind.modulation import Modulated, extend, load_modulated, save_modulated
from ..networks.backprojection import BackProjection
from ..networks.darm import DARM
from ..networks.family import load_family
from ..networks.image_error import negative_psnr
from .command import describe_training, make_parser, print_progress, read_options
from .crops.wild import Group, WildCrops, WildOptions
from .loop import train


@dataclass(frozen=True)
class ModulatedTraining(WildOptions):
    """Options of this training."""

    steps: int = 8000
    rate: float = 6e-4
    warmup: int = 200
    validate_every: int = 1000
    save_every: int = 250
    sets: int = 12
    rounds: int = 3  # of back-projection, where the condition is clean blur
    luma: float = 0.75  # share of Y in the error


def train_modulated(
    images: Path,
    out: Path,
    options: ModulatedTraining,
    start: Modulated | None = None,
    device: str = "cpu",
    resume: bool = False,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[dict], None] = lambda _: None,
) -> Modulated:
    """Train on a folder of photographs.

    Args:
        start: networks to go on from; else the package's family and default backbone.

    The other arguments, and what is raised, are :func:`.training.train`'s.
    """
    torch.manual_seed(options.seed)
    if start is None:
        family = extend(load_family(options.scale), options.sets)
        start = Modulated(family, load_backbone("edge", options.scale).module)
    model = copy.deepcopy(start).requires_grad_(True)
    crops = WildCrops(list_images(images), options)
    plain = DARM(channels=model.family.channels).eval().requires_grad_(False)
    plain = plain.to(device, memory_format=torch.channels_last)

    def loss_of(model: Modulated, step: int) -> Tensor:
        return torch.stack([error(model, crops.group(step, index)) for index in range(options.groups)]).mean()

    def error(model: Modulated, group: Group) -> Tensor:
        degraded, hr = (image.to(device, memory_format=torch.channels_last) for image in (group.degraded, group.hr))
        vector = model.vector(group.condition)
        with options.autocast(device):
            corrected = torch.func.functional_call(plain, model.family.weights(vector), (degraded,))
            sr = model.enlarge(corrected.contiguous(memory_format=torch.channels_last), vector)
        sr = sr.float()
        if group.condition.is_clean() and group.kind == "blur":
            kernel = torch.from_numpy(kernels.estimated(group.condition.covariance, options.scale)).float()
            sr = BackProjection(kernel, options.scale, options.rounds).to(device)(sr, degraded)
        return negative_psnr(sr, hr, options.luma)

    return train(model, options, loss_of, out, validate, device, resume, report)


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the networks that are told the degradation.", ModulatedTraining)
    parser.add_argument("--start", type=Path, help="networks to go on from")
    given = parser.parse_args()
    options = read_options(given, ModulatedTraining)
    start = load_modulated(given.start) if given.start else None
    trained = train_modulated(
        given.images, given.out, options, start, given.device, given.resume, report=print_progress
    )
    facts = describe_training(parser, given, "modulated")
    facts["neutral_sha256"] = load_backbone("edge", options.scale).sha256
    print(save_modulated(trained, given.out, facts))


if __name__ == "__main__":
    main()
