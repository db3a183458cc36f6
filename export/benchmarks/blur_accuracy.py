"""How well blurs are estimated, and what the errors cost: ``python -m export.benchmarks.blur_accuracy SET...`` (with kernel/).

Every image is restored by the family's network for its estimated blur, for the same blur a little narrower and wider, and
for the true one, each with back-projection and without the choices of ``fast``, which may restore more mildly, or nothing
where it finds no blur. Prints a Markdown table with a row for each set.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from darsr_deploy.blind import blur
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import to_image, to_tensor
from darsr_deploy.images.metrics import psnr_y
from darsr_train.adaptation.fast import analysis_window
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.measure import check_truth
from darsr_train.evaluation.sets import Pair, find_sets, read_kernel
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.family import load_family
from darsr_train.networks.prior import load_prior

from .timing import parser, run

OFFSETS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # of the width's logarithm, from what is estimated


class Restorers:
    """The parts of ``fast``, run for any blur.

    Args:
        family: a file to use instead of the package's own.
    """

    def __init__(self, scale: int, backbone: str = "edge", family: Path | None = None) -> None:
        self.scale = scale
        self.backbone = load_backbone(backbone, scale).module
        self.prior, self.family = load_prior(scale), load_family(scale, family)
        self.rounds = AdaptOptions.profile("fast", scale).rounds

    @torch.inference_mode()
    def estimate(self, y: Tensor) -> np.ndarray:
        """Return the blur's covariance, 2 x 2 in HR pixels squared; the least one where the image seems only reduced."""
        return blur.estimate_covariance(self.backbone(self.prior(y)).clamp(0, 1).numpy(), y.numpy(), self.scale)

    @torch.inference_mode()
    def alone(self, y: Tensor) -> np.ndarray:
        """Return the 8-bit image by the backbone, without a correction."""
        return to_image(self.backbone(y).numpy())

    @torch.inference_mode()
    def restored(self, y: Tensor, covariance: np.ndarray) -> np.ndarray:
        """Return the 8-bit image by the network for this blur, and back-projection."""
        kernel = kernels.estimated(covariance, self.scale)
        sr = self.backbone(self.family.member(covariance)(y))
        return to_image(BackProjection(torch.from_numpy(kernel).float(), self.scale, self.rounds)(sr, y).numpy())


def measure(pair: Pair, restorers: Restorers) -> dict:
    """Measure one image: the estimated blur, its error, and the Y-PSNR of every way to use it.

    Returns:
        ``reduced``: whether the image is taken for one that was only reduced; ``errors``: estimate less truth of the
        covariance's logarithm (width, elongation along the axes and across them), None if so; ``told``: Y-PSNR for every
        offset and for ``"truth"``; ``alone``: that of the backbone alone.
    """
    pixels, hr = check_truth(pair.lr, pair.hr, restorers.scale)
    truth = moments.covariance_of(read_kernel(pair.kernel), restorers.scale)
    y = torch.from_numpy(to_tensor(pixels)).contiguous(memory_format=torch.channels_last)
    found = restorers.estimate(torch.from_numpy(to_tensor(analysis_window(pixels))))
    parts, reduced = moments.logarithm(found), bool(np.allclose(found, moments.LEAST * np.eye(2)))
    told = {offset: moments.from_logarithm(parts + np.array([offset, 0, 0])) for offset in OFFSETS} | {"truth": truth}
    images = {name: restorers.restored(y, given) for name, given in told.items()}
    return {
        "reduced": reduced,
        "errors": None if reduced else parts - moments.logarithm(truth),
        "told": {name: psnr_y(image, hr, restorers.scale) for name, image in images.items()},
        "alone": psnr_y(restorers.alone(y), hr, restorers.scale),
    }


def table(results: dict[str, list[dict]]) -> str:
    """Return Markdown, a row for each set."""
    ways = [*(f"{offset:+.1f}" if offset else "as estimated" for offset in OFFSETS), "the truth"]
    heads = ["set", "images", "taken for only reduced", "width", "elongation", "backbone alone", *ways]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, rows in results.items():
        errors = np.array([row["errors"] for row in rows if row["errors"] is not None]).reshape(-1, 3)
        width, elongation = "", ""
        if len(errors):
            width = f"{np.median(errors[:, 0]):+.2f}, {np.median(np.abs(errors[:, 0])):.2f}"
            elongation = f"{np.median(np.hypot(errors[:, 1], errors[:, 2])):.2f}"
        told = [f"{np.mean([row['told'][way] for row in rows]):.2f}" for way in (*OFFSETS, "truth")]
        reduced = sum(row["reduced"] for row in rows)
        cells = [name, len(rows), reduced, width, elongation, f"{np.mean([row['alone'] for row in rows]):.2f}", *told]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table."""
    options = parser(__doc__, backbone="edge", scale=2, limit=None, threads=None)
    options.add_argument("sets", type=Path, nargs="+", help="sets with LR/, HR/ and kernel/, or folders of such sets")
    options.add_argument("--family", type=Path, help="instead of the package's own")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    def stop(error: DarsrError) -> NoReturn:
        raise error

    results = {}
    restorers = Restorers(given.scale, given.backbone, given.family)
    for found in find_sets(given.sets, given.scale, stop, say):
        results[found.name] = [measure(pair, restorers) for pair in found.pairs[: given.limit]]
        say(found.name)
    print(table(results))
    print(
        "\nWidth: median of the errors, and of their sizes, in the logarithm of the variance; elongation: median size."
    )


if __name__ == "__main__":
    run(main)
