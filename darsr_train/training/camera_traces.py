"""Train the detector of in-camera processing.

Run ``python -m darsr_train.training.camera_traces PHOTOS --out traces.safetensors``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from darsr_deploy.blind.camera_traces import TILE, VERSION, features
from darsr_deploy.blind.mlp import evaluate
from darsr_deploy.files.container import write_container
from darsr_deploy.images.arrays import list_images

from ..networks.mlp import fit
from .command import describe_training, make_parser
from .crops.degraded import Degradations, DegradedCrops

_HIDDEN = 24
_HELD_OUT = 0.15  # of the samples


def samples(photographs: list[Path], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features of crops and whether a camera processed them: every second one; a quarter are at x4."""
    shared = {"patch": TILE, "batch": 1, "candidates": 1, "noise_share": 0.0, "jpeg_share": 0.0, "seed": seed}
    kinds = {
        (scale, camera): DegradedCrops(photographs, Degradations(scale=scale, camera_share=float(camera), **shared))
        for scale in (2, 4)
        for camera in (False, True)
    }
    found, labels = [], []
    for index in range(count):
        camera, scale = index % 2 == 1, 4 if index % 8 >= 6 else 2
        degraded, _, _ = kinds[scale, camera].batch(index)
        found.append(features(degraded[0].permute(1, 2, 0).numpy() * 255))
        labels.append(camera)
    return np.array(found), np.array(labels)


def train_detector(found: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], dict]:
    """Return weights for :mod:`darsr_deploy.blind.camera_traces`, and the accuracy on samples that were held out."""
    split, truth = int(len(found) * (1 - _HELD_OUT)), labels[:, None].astype(float)
    trained = fit(found[:split], truth[:split], F.binary_cross_entropy_with_logits, _HIDDEN)
    right = (evaluate(trained, found[split:]) > 0) == truth[split:]
    return trained, {"held_out": float(right.mean())}


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the detector of a camera's traces.")
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    weights, accuracy = train_detector(*samples(list_images(given.images), given.samples, given.seed))
    print(json.dumps(accuracy), file=sys.stderr)
    facts = {**describe_training(parser, given, "camera_traces"), "accuracy": accuracy}
    print(write_container(given.out, "traces", VERSION, facts, {k: v.astype(np.float32) for k, v in weights.items()}))


if __name__ == "__main__":
    main()
