"""Cost of one adaptation step at the paper's settings, beside the straightforward way: ``python -m export.benchmarks.paper_step``.

The straightforward way runs the generator layer by layer; everything else is the same. Both compute the same losses
and gradients (see the tests); runs alternate in one process, so that a drifting machine does not decide.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from darsr_train.adaptation.paper import KernelWeights, Networks, adversarial_step
from darsr_train.backbones import load_backbone
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import Discriminator, Generator, layer_by_layer


class _LayerByLayer(Generator):
    def forward(self, x: Tensor) -> Tensor:
        return layer_by_layer(self, x)


def bench(backbone: str, batch: int, repeats: int, scale: int = 2) -> dict:
    """Median seconds of one whole step (G, DARM and D) both ways, and of the generator's forward and backward alone."""
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
    seconds: dict[str, dict[str, list[float]]] = {name: {"generator": [], "step": []} for name in ways}
    for _ in range(repeats + 1):  # the first round warms up
        for name, (nets, optimisers) in ways.items():
            started = time.perf_counter()
            nets.generator(crops["x"]).square().mean().backward()
            seconds[name]["generator"].append(time.perf_counter() - started)
            started = time.perf_counter()
            adversarial_step(nets, optimisers, crops, KernelWeights())
            seconds[name]["step"].append(time.perf_counter() - started)
    medians = {
        name: {part: statistics.median(values[1:]) for part, values in parts.items()} for name, parts in seconds.items()
    }
    ratios = {part: medians["layer by layer"][part] / medians["composed"][part] for part in ("generator", "step")}
    return {
        "batch": batch,
        "backbone": backbone,
        "threads": torch.get_num_threads(),
        "median_seconds": medians,
        "times_faster": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="edge")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(bench(arguments.backbone, arguments.batch, arguments.repeats), indent=1))


if __name__ == "__main__":
    main()
