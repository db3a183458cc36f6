"""Cost of one adaptation step at the paper's settings, beside the straightforward ways: ``python -m export.benchmarks.paper_step``.

The straightforward ways run the generator layer by layer, and DARM's 72 filters one by one; everything else is the same. All
compute the same losses and gradients (see the tests); runs alternate in one process, and what counts is the time of all
threads, so that neither a drifting machine nor a busy one decides.
"""

from __future__ import annotations

import json
import statistics
import time
from functools import partial

import torch
from torch import Tensor, nn

from darsr_train.adaptation.published.schedule import KernelWeights
from darsr_train.adaptation.published.step import Networks, adversarial_step
from darsr_train.backbones import load_backbone
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import Discriminator, Generator, layer_by_layer

from .timing import parser, run


class _LayerByLayer(Generator):
    def forward(self, x: Tensor) -> Tensor:
        return layer_by_layer(self, x)


class _ByDictionary(nn.Module):
    """A DARM that convolves with its 72 filters and mixes what they give."""

    dictionary = None

    def __init__(self) -> None:
        super().__init__()
        self.darm = DARM(correction_dictionary())

    def forward(self, x: Tensor) -> Tensor:
        return self.darm(x)


def bench(backbone: str, batch: int, crop: int, repeats: int, scale: int = 2) -> dict:
    """Return median seconds of processor time of one whole step (G, DARM and D) in every way, and of the generator's passes alone.

    Args:
        crop: side of an LR crop in pixels.
    """
    network = load_backbone(backbone, scale).module
    torch.manual_seed(0)
    sides = {"x": scale * crop, "b": crop, "y": crop, "u": scale * crop}
    crops = {name: torch.rand(batch, 3, side, side) for name, side in sides.items()}
    ways = {
        "layer by layer, 72 filters": (_LayerByLayer(scale), _ByDictionary()),
        "composed kernel, 72 filters": (Generator(scale), _ByDictionary()),
        "composed kernel, 13 taps": (Generator(scale), DARM(correction_dictionary())),
    }

    def generate(generator: Generator) -> None:
        generator(crops["x"]).square().mean().backward()

    calls = {}
    for name, (generator, darm) in ways.items():
        nets = Networks(generator, Discriminator(), darm, DSEM().eval().requires_grad_(False), network)
        owners = {"g": nets.generator, "d": nets.discriminator, "darm": nets.darm}
        optimisers = {
            key: torch.optim.Adam(owner.parameters(), 1e-4, betas=(0.5, 0.999)) for key, owner in owners.items()
        }
        calls["generator", name] = partial(generate, generator)
        calls["step", name] = partial(adversarial_step, nets, optimisers, crops, KernelWeights())
    spent: dict = {key: [] for key in calls}
    for _ in range(1 + repeats):  # the first warms up
        for key, call in calls.items():
            started = time.process_time()
            call()
            spent[key].append(time.process_time() - started)
    medians = {n: {part: statistics.median(spent[part, n][1:]) for part in ("generator", "step")} for n in ways}
    sizes = {"batch": batch, "crop": crop, "backbone": backbone, "threads": torch.get_num_threads()}
    return sizes | {"median_seconds": medians}


def main() -> None:
    """Print one JSON object."""
    options = parser(__doc__, backbone="edge", repeats=3, threads=None)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--crop", type=int, default=64, help="side of an LR crop in pixels")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    print(json.dumps(bench(given.backbone, given.batch, given.crop, given.repeats), indent=1))


if __name__ == "__main__":
    run(main)
