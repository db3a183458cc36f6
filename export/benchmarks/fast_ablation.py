"""What every part of profile ``fast`` is worth: ``python -m export.benchmarks.fast_ablation FOLDER...`` (sets with LR/ and HR/).

Prints a Markdown table of the mean gain over the backbone alone and of the seconds an image took.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from darsr_deploy.errors import DarsrError
from darsr_train.adaptation.options import FIT_STEPS, AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.measure import evaluate_image
from darsr_train.evaluation.sets import image_pairs

# Changes of the default options, by what they are called in the table.
VARIANTS: dict[str, dict] = {
    "as shipped": {},
    "without back-projection": {"rounds": 0},
    "six rounds of back-projection instead of three": {"rounds": 6},
    "without the family (the prior and back-projection)": {"family": False, "steps": 0},
    "without both (the prior)": {"family": False, "steps": 0, "rounds": 0},
    "the prior fitted to the blur instead, 80 steps": {"family": False, "steps": FIT_STEPS},
    "the family, then 80 steps of fit": {"steps": FIT_STEPS},
    "the same with the backward cycle and masked interpolation": {
        "steps": FIT_STEPS,
        "cycle": 1.0,
        "interpolation": 0.1,
    },
    "the prior fitted on the image alone (DARSR's terms, no photographs)": {
        "family": False,
        "steps": FIT_STEPS,
        "references": 0,
        "forward_cycle": 1.0,
        "cycle": 1.0,
        "interpolation": 0.1,
    },
}


def measure(folders: list[Path], changes: dict, backbone_name: str, scale: int, limit: int | None) -> list[dict]:
    """A row of :func:`darsr_train.evaluation.measure.evaluate_image` for every image, with changed options."""
    backbone = load_backbone(backbone_name, scale)
    options = replace(AdaptOptions.profile("fast", scale), **changes)
    pairs = [pair for folder in folders for pair in image_pairs(folder)[:limit]]
    return [evaluate_image(pair.lr, pair.hr, backbone, options) for pair in pairs]


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: mean Y-PSNR, gain over the backbone alone, and seconds, for every variant."""
    lines = ["| | Y-PSNR dB | gain dB | seconds |", "|---|---|---|---|"]
    for name, rows in results.items():
        psnr, alone, seconds = (np.mean([row[key] for row in rows]) for key in ("psnr_y", "psnr_y_backbone", "seconds"))
        lines.append(f"| {name} | {psnr:.2f} | {psnr - alone:+.2f} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What every part of the fast profile is worth.")
    parser.add_argument("folders", type=Path, nargs="+", help="sets with LR/ and HR/")
    parser.add_argument("--backbone", default="edge")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 4))
    parser.add_argument("--limit", type=int, help="images of each set")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="names of the table's rows")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    results = {}
    for name in given.only or VARIANTS:
        try:
            results[name] = measure(given.folders, VARIANTS[name], given.backbone, given.scale, given.limit)
        except DarsrError as error:
            sys.exit(f"error: {error}")
        print(name, file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
