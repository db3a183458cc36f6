"""Cost of one adaptation step at the paper's settings, beside the straightforward way: ``python -m export.benchmarks.paper_step``.

The straightforward way runs the generator layer by layer; everything else is the same. Both compute the same losses
and gradients (see the tests); runs alternate in one process, so that a drifting machine does not decide.
"""

from __future__ import annotations

import json
from functools import partial

import torch
from torch import Tensor

from darsr_train.adaptation.published.schedule import KernelWeights
from darsr_train.adaptation.published.step import Networks, adversarial_step
from darsr_train.backbones import load_backbone
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import Discriminator, Generator, layer_by_layer

from .timing import alternate, parser, run


class _LayerByLayer(Generator):
    def forward(self, x: Tensor) -> Tensor:
        return layer_by_layer(self, x)


def bench(backbone: str, batch: int, repeats: int, scale: int = 2) -> dict:
    """Return median seconds of one whole step (G, DARM and D) both ways, and of the generator's passes alone."""
    torch.manual_seed(0)
    network = load_backbone(backbone, scale).module
    crops = {
        name: torch.rand(batch, 3, side, side)
        for name, side in (("x", 128), ("b", 128 // scale), ("y", 128 // scale), ("u", 128))
    }
    ways = {}
    for name, generator in (("layer by layer", _LayerByLayer(scale)), ("composed", Generator(scale))):
        nets = Networks(
            generator, Discriminator(), DARM(correction_dictionary()), DSEM().eval().requires_grad_(False), network
        )
        owners = {"g": nets.generator, "d": nets.discriminator, "darm": nets.darm}
        ways[name] = (
            nets,
            {key: torch.optim.Adam(owner.parameters(), 1e-4, betas=(0.5, 0.999)) for key, owner in owners.items()},
        )

    def generate(generator: Generator) -> None:
        generator(crops["x"]).square().mean().backward()

    calls = {}
    for name, (nets, optimisers) in ways.items():
        calls["generator", name] = partial(generate, nets.generator)
        calls["step", name] = partial(adversarial_step, nets, optimisers, crops, KernelWeights())
    timings = alternate(calls, repeats)
    medians = {name: {part: timings[part, name].median_ms / 1e3 for part in ("generator", "step")} for name in ways}
    ratios = {part: medians["layer by layer"][part] / medians["composed"][part] for part in ("generator", "step")}
    return {
        "batch": batch,
        "backbone": backbone,
        "threads": torch.get_num_threads(),
        "median_seconds": medians,
        "times_faster": ratios,
    }


def main() -> None:
    """Print one JSON object."""
    options = parser(__doc__, backbone="edge", repeats=3)
    options.add_argument("--batch", type=int, default=16)
    given = options.parse_args()
    print(json.dumps(bench(given.backbone, given.batch, given.repeats), indent=1))


if __name__ == "__main__":
    run(main)
