"""The gain of every part of a profile: ``python -m export.benchmarks.ablation FOLDER... --profile thorough`` (sets with LR/ and HR/).

Prints a Markdown table of the mean gain over the backbone alone and of the seconds an image took. Profile ``thorough`` is also
measured with what the published procedure has and it has not: its cycles, its degradation score, its GAN.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darsr_deploy.bundle.shipped import modulated_path
from darsr_deploy.degradation import kernels
from darsr_deploy.images.arrays import read_image, to_image, to_tensor
from darsr_deploy.images.metrics import psnr_y
from darsr_train.adaptation.checkpoint import Checkpoint
from darsr_train.adaptation.options import FIT_STEPS, AdaptOptions
from darsr_train.adaptation.published import losses
from darsr_train.adaptation.published.crops import CropSampler, usable
from darsr_train.adaptation.thorough import Blur, FittedNetworks, estimate_blur, fit
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import load_modulated
from darsr_train.blind.networks import TorchNetworks
from darsr_train.degradation.reduction import reduce
from darsr_train.evaluation.measure import evaluate_image
from darsr_train.evaluation.sets import Pair, find_pairs, read_kernel
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import Discriminator, Generator

from .timing import parser, run

# Changes of the default options of profile fast, by what they are called in the table.
VARIANTS: dict[str, dict] = {
    "as shipped": {},
    "without back-projection": {"rounds": 0},
    "six rounds of back-projection instead of three": {"rounds": 6},
    "without the family (the prior and back-projection)": {"family": False, "steps": 0},
    "without both (the prior)": {"family": False, "steps": 0, "rounds": 0},
    "the prior fitted to the blur instead, 80 steps": {"family": False, "steps": FIT_STEPS},
    "the family, then 80 steps of fit": {"steps": FIT_STEPS},
}
_CROPS = 4  # of the image in a step of the published terms
_SIDE = 64  # of the crops that play the HR, in pixels
_SCORE_STEPS, _GAN_STEPS = 100, 300


def measure(folders: list[Path], changes: dict, backbone_name: str, scale: int, limit: int | None) -> list[dict]:
    """Return a row of :func:`darsr_train.evaluation.measure.evaluate_image` for every image, with changed options."""
    backbone = replace(load_backbone(backbone_name, scale), sha256="")  # frozen: no networks of its own are told
    options = replace(AdaptOptions.profile("fast", scale), **changes)
    pairs = [pair for folder in folders for pair in find_pairs(folder)[:limit]]
    return [evaluate_image(pair.lr, pair.hr, backbone, options) for pair in pairs]


def measure_thorough(pair: Pair, steps: int) -> dict[str, dict]:
    """Return a row for every variant of profile ``thorough``, all of one estimate of the blur and one number of steps."""
    backbone, pixels, hr = load_backbone("edge", 2), read_image(pair.lr), read_image(pair.hr)
    options = AdaptOptions.profile("thorough", steps=steps)
    y = torch.from_numpy(to_tensor(pixels))
    rows = {"fast": evaluate_image(pair.lr, pair.hr, backbone, AdaptOptions.profile("fast"))}
    alone = rows["fast"]["psnr_y_backbone"]
    started = time.perf_counter()
    blur = estimate_blur(pixels, TorchNetworks(2))
    estimating = time.perf_counter() - started

    def row(blur: Blur, steps: int, term: Callable | None = None, rounds: tuple[int, ...] = (1,)) -> list[dict]:
        started = time.perf_counter()
        fitted = FittedNetworks(copy.deepcopy(load_modulated(modulated_path(2, "clean"))), blur.condition)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder) / "state", "", resume=False)
            fit(fitted, blur, replace(options, steps=steps), checkpoint, lambda _: None, term)
        seconds = time.perf_counter() - started + estimating
        with torch.no_grad():
            sr = fitted(y)
            results = [BackProjection(torch.from_numpy(blur.kernel).float(), 2, count)(sr, y) for count in rounds]
        figures = [psnr_y(to_image(result.numpy()), hr, 2) for result in results]
        return [{"psnr_y": figure, "psnr_y_backbone": alone, "seconds": seconds} for figure in figures]

    rows["as fitted: one round of back-projection"], rows["no back-projection"], rows["three rounds"] = row(
        blur, steps, rounds=(1, 0, 3)
    )
    (rows["the kernel alone: no fit"],) = row(blur, 0)
    both = (blur.kernel + blur.kernel[::-1, ::-1]) / 2
    (rows["the kernel and its mirror image at once"],) = row(Blur(both, (both,)), steps)
    crops = CropSampler.of(usable(pixels, 2), 2, _SIDE, augment=False)
    started = time.perf_counter()
    refined = _refine_by_gan(blur.kernel, crops)
    own = time.perf_counter() - started
    (rows["the kernel refined by the GAN"],) = row(Blur(refined, (refined,)), steps)
    rows["the kernel refined by the GAN"]["seconds"] += own
    terms = {"backward cycle": _backward_cycle, "forward cycle": _forward_cycle}
    for name, term in terms.items():
        (rows[f"and the {name}"],) = row(blur, steps, lambda f, step, term=term: term(f, _sampled(crops, step), blur))
    started = time.perf_counter()
    score = _train_score(crops)
    own = time.perf_counter() - started
    (rows["and the degradation score"],) = row(
        blur, steps, lambda f, step: _score_term(f, _sampled(crops, step), score)
    )
    rows["and the degradation score"]["seconds"] += own
    if pair.kernel.is_file():
        true = read_kernel(pair.kernel)
        true = np.pad(true, (len(blur.kernel) - len(true)) // 2)
        (rows["with the true kernel"],) = row(Blur(true, (true,)), steps)
    return rows


def _sampled(crops: CropSampler, step: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in crops.sample(1, step, _CROPS).items()}


def _backward_cycle(fitted: FittedNetworks, crops: dict[str, Tensor], blur: Blur) -> Tensor:
    """Return how far the enlarged image, reduced by the kernel, is from the given one (DARSR, section 3.4)."""
    kernel = torch.from_numpy(blur.kernel).float()
    inner = (..., slice(4, -4), slice(4, -4))
    return (reduce(fitted(crops["y"]), kernel, 2) - crops["y"])[inner].abs().mean()


def _forward_cycle(fitted: FittedNetworks, crops: dict[str, Tensor], blur: Blur) -> Tensor:
    """Return how far the image, reduced by the kernel and enlarged again, is from itself."""
    x, kernel = crops["x"], torch.from_numpy(blur.kernel).float()
    inner = (..., slice(8, -8), slice(8, -8))
    return (fitted(reduce(x, kernel, 2)) - x)[inner].abs().mean()


def _train_score(crops: CropSampler) -> DSEM:
    """Train the degradation score (section 3.3) for as many steps as a CPU can bear."""
    torch.manual_seed(0)
    score = DSEM()
    optimiser = torch.optim.Adam(score.parameters(), lr=1e-4)
    for step in range(_SCORE_STEPS):
        sample = _sampled(crops, step)
        loss = score(sample["b"]).square().mean() + (score(sample["y"]) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return score.eval().requires_grad_(False)


def _score_term(fitted: FittedNetworks, crops: dict[str, Tensor], score: DSEM) -> Tensor:
    """Return how far corrected crops are from bicubic ones in the degradation score; a tenth of it, as errors are logarithms."""
    return 0.1 * losses.score_distance(score(fitted.darm(crops["y"])), score(crops["b"]))


def _refine_by_gan(kernel: np.ndarray, crops: CropSampler) -> np.ndarray:
    """Return the kernel after steps of the degradation GAN (section 3.2) that start from it: 14 x 14, positive, sum 1."""
    torch.manual_seed(0)
    generator, discriminator = Generator(2), Discriminator()
    start = torch.from_numpy(kernels.normalised(kernel[1:, 1:])).float()  # 13 taps, centred at the seventh of them
    optimiser = torch.optim.Adam(generator.parameters(), 2e-3)
    for _ in range(400):  # a deep linear network that equals the kernel
        optimiser.zero_grad()
        F.mse_loss(generator.kernel(), start, reduction="sum").backward()
        optimiser.step()
    for_g = torch.optim.Adam(generator.parameters(), 2e-5, betas=(0.5, 0.999))
    for_d = torch.optim.Adam(discriminator.parameters(), 2e-4, betas=(0.5, 0.999))
    for step in range(_GAN_STEPS):
        sample = _sampled(crops, step)
        fake = generator(sample["x"])
        taps = generator.kernel()
        loss = losses.gan_generator(discriminator(fake)) + losses.sum_to_one(taps) + losses.boundaries(taps)
        for_g.zero_grad()
        loss.backward()
        for_g.step()
        for_d.zero_grad()
        losses.gan_discriminator(discriminator(fake.detach()), discriminator(sample["y"])).backward()
        for_d.step()
    found = np.pad(generator.kernel().detach().double().numpy(), ((1, 0), (1, 0)))
    return kernels.normalised(np.maximum(found, 0))


def table(results: dict[str, list[dict]]) -> str:
    """Return Markdown: mean Y-PSNR, gain over the backbone alone, and seconds, for every variant."""
    lines = ["| | Y-PSNR dB | gain dB | seconds |", "|---|---|---|---|"]
    for name, rows in results.items():
        psnr, alone, seconds = (np.mean([row[key] for row in rows]) for key in ("psnr_y", "psnr_y_backbone", "seconds"))
        lines.append(f"| {name} | {psnr:.2f} | {psnr - alone:+.2f} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table."""
    options = parser(__doc__, backbone="edge", scale=2, limit=None, threads=None)
    options.add_argument("--steps", type=int, help="of the fit of profile thorough")
    options.add_argument("--profile", choices=("fast", "thorough"), default="fast")
    options.add_argument("folders", type=Path, nargs="+", help="sets with LR/ and HR/")
    options.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="names of the table's rows")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    results: dict[str, list[dict]] = {}
    if given.profile == "thorough":
        steps = given.steps or AdaptOptions.profile("thorough").steps
        for pair in (pair for folder in given.folders for pair in find_pairs(folder)[: given.limit]):
            for name, row in measure_thorough(pair, steps).items():
                results.setdefault(name, []).append(row)
            print(f"{pair.lr}\n{table(results)}", file=sys.stderr)
        print(table(results))
        return
    for name in given.only or VARIANTS:
        results[name] = measure(given.folders, VARIANTS[name], given.backbone, given.scale, given.limit)
        print(name, file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    run(main)
