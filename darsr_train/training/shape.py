"""Train the network that sees a blur's shape: ``python -m darsr_train.training.shape PHOTOS --out shape-x2.safetensors``.

Samples are made once and kept beside the file to be (``shape-x2.samples``), so that an interrupted run goes on; they take
most of the time, about a tenth of a second each on one core.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.blind import shape
from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.reduction import reduce
from darsr_deploy.files.atomic import write_bytes
from darsr_deploy.files.container import write_container
from darsr_deploy.images.arrays import list_images, read_image
from darsr_deploy.images.resample import to_uint8

from ..blind.networks import TorchNetworks
from ..degradation.odd_kernels import random_blobs, random_odd
from .command import describe_training, make_parser

_SHARP_FROM = 4e5  # pixels from which a photograph is reduced first: large ones are softer, pixel by pixel
_SIDES = (110, 170)  # of the LR crops
_HELD_OUT = 800  # samples
_KEEP_EVERY = 500  # samples
_WIDTH = 128


def draw_kernel(random: np.random.Generator) -> np.ndarray:
    """Draw a blur of any kind: 14 x 14, positive, sum 1, centre of mass near the middle."""
    draws = (
        (0.17, lambda: kernels.random_gaussian(random, 12, 0.08, 6.0, 0.25 * random.random(), random.random() < 0.5)),
        (0.13, lambda: kernels.random_motion(random, 12)),
        (0.12, lambda: kernels.random_disk(random, 12)),
        (0.06, lambda: kernels.random_mixture(random, 12)),
        (0.12, lambda: random_blobs(random, 12)),
        (0.40, lambda: random_odd(random, 12)[1]),
    )
    pick = random.choice(len(draws), p=[share for share, _ in draws])
    return kernels.normalised(np.pad(np.maximum(draws[pick][1](), 0), (shape.SIDE - 12) // 2))


def draw_picture(random: np.random.Generator, photographs: list[Path], kernel: np.ndarray) -> np.ndarray:
    """Blur and reduce a crop of a photograph, a few with slight noise or JPEG artefacts: float32 1 x 3 x H x W in [0, 1]."""
    hr = read_image(photographs[random.integers(len(photographs))])
    hr = np.repeat(hr[..., None], 3, 2) if hr.ndim == 2 else hr
    if hr.shape[0] * hr.shape[1] > _SHARP_FROM:
        size = random.uniform(0.4, 0.8)
        hr = cv2.resize(hr, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
    sides = [min(length // 2, int(random.integers(*_SIDES))) * 2 for length in hr.shape[:2]]
    top, left = (int(random.integers(0, length - side + 1)) for length, side in zip(hr.shape, sides))
    crop = hr[top : top + sides[0], left : left + sides[1]].transpose(2, 0, 1)[None]
    values = reduce(np.ascontiguousarray(crop, np.float32), kernel, 2)
    if random.random() < 0.25:
        values = values + random.normal(0, random.uniform(0, 0.8), values.shape)
    lr = to_uint8(values)[0].transpose(1, 2, 0)
    if random.random() < 0.12:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(90, 100))]
        lr = cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(lr), quality)[1], cv2.IMREAD_COLOR)
    return (lr.transpose(2, 0, 1)[None] / 255).astype(np.float32)


def make_samples(photographs: list[Path], count: int, seed: int, kept: Path) -> dict[str, np.ndarray]:
    """Return what the network is told of pictures, and their kernels; ``kept`` holds what was made so far.

    Returns:
        ``spectrum`` N x 31 x 31, ``explained`` N x 12 x 12, ``rest`` N, ``kernel`` N x 14 x 14.
    """
    networks = TorchNetworks(2)
    rows: dict[str, list[np.ndarray]] = {"spectrum": [], "explained": [], "rest": [], "kernel": []}
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as found:
            rows = {name: list(found[name]) for name in rows}
    for index in range(len(rows["rest"]), count):
        random = np.random.default_rng((seed, index))
        kernel = draw_kernel(random)
        y = draw_picture(random, photographs, kernel)
        row = (*shape.observe(networks.restore(y).clip(0, 1), y), kernel)
        for values, value in zip(rows.values(), row):
            values.append(np.float32(value))
        if (index + 1) % _KEEP_EVERY == 0:
            file = io.BytesIO()
            np.savez(file, **{name: np.stack(values) for name, values in rows.items()})
            write_bytes(kept, file.getvalue())
            print(json.dumps({"samples": index + 1}), file=sys.stderr, flush=True)
    return {name: np.stack(values[:count]) for name, values in rows.items()}


class ShapeNetwork(nn.Module):
    """Kernels from observations; :func:`darsr_deploy.blind.shape.evaluate` is the same in NumPy, for one.

    Args:
        mean: 31 x 31 spectrum, the same in every view.
        spread: what a difference from it is divided by.
    """

    def __init__(self, mean: Tensor, spread: Tensor, width: int = _WIDTH) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        inputs = mean.shape[0] * (mean.shape[1] // 2 + 1) + 12 * 12 + 1
        sides = (inputs, width, width, width, shape.SIDE**2)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sides, sides[1:]))

    def forward(self, spectrum: Tensor, explained: Tensor, rest: Tensor) -> Tensor:
        """Return N x 14 x 14 kernels, positive, sum 1."""
        half = (spectrum - self.mean)[..., : spectrum.shape[-1] // 2 + 1] / self.spread
        x = F.silu(self.layers[0](torch.cat([half.flatten(1), 2 * explained.flatten(1), rest[:, None]], 1)))
        x = x + F.silu(self.layers[1](F.dropout(x, 0.1, self.training)))
        x = x + F.silu(self.layers[2](x))
        return self.layers[3](x).softmax(1).unflatten(1, (shape.SIDE, shape.SIDE))


def shape_error(found: Tensor, true: Tensor) -> Tensor:
    """Return the relative L2 errors of kernels or of their mirror images, whichever are less: N values."""
    errors = [(k - true).square().sum((1, 2)) for k in (found, found.flip(-1, -2))]
    return (torch.minimum(*errors) / true.square().sum((1, 2))).sqrt()


def train(samples: dict[str, np.ndarray], steps: int, seed: int = 0) -> tuple[ShapeNetwork, dict]:
    """Train on samples of :func:`make_samples`; the first eight hundred, or a fifth of a few, are held out.

    Returns:
        The network in eval mode, and the mean and the quartiles of the error on what was held out.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    spectrum, explained, rest, kernel = (torch.from_numpy(samples[name]) for name in samples)
    held_out = min(_HELD_OUT, len(rest) // 5)
    views = [_view(spectrum.mean(0), view) for view in range(shape.VIEWS)]
    network = ShapeNetwork(torch.stack(views).mean(0), spectrum.std((1, 2)).mean())
    optimiser = torch.optim.AdamW(network.parameters(), 1.5e-3, weight_decay=1e-2)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 100) * (1 - step / steps)
        picked = torch.from_numpy(random.integers(held_out, len(rest), 128))
        view = int(random.integers(shape.VIEWS))
        found = network(_view(spectrum[picked], view), _view(explained[picked], view), rest[picked])
        loss = shape_error(found, _view(kernel[picked], view)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        network.eval()
        errors = shape_error(network(spectrum[:held_out], explained[:held_out], rest[:held_out]), kernel[:held_out])
    quartiles = [round(float(q), 3) for q in errors.quantile(torch.tensor([0.25, 0.5, 0.75]))]
    return network, {"error": round(float(errors.mean()), 3), "quartiles": quartiles}


def _view(batch: Tensor, view: int) -> Tensor:
    """Return the last two axes as :func:`darsr_deploy.blind.shape.viewed` has them."""
    batch = batch.flip(-1) if view & 1 else batch
    batch = batch.flip(-2) if view & 2 else batch
    return batch.transpose(-1, -2) if view & 4 else batch


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the network that sees a blur's shape.")
    parser.add_argument("--samples", type=int, default=12000)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    samples = make_samples(list_images(given.images), given.samples, given.seed, given.out.with_suffix(".samples"))
    network, accuracy = train(samples, given.steps, given.seed)
    print(json.dumps(accuracy), file=sys.stderr)
    arrays = {name: tensor.numpy().astype(np.float16) for name, tensor in network.state_dict().items()}
    facts = {**describe_training(parser, given, "shape"), "accuracy": accuracy}
    print(write_container(given.out, "shape", shape.VERSION, facts, arrays))


if __name__ == "__main__":
    main()
