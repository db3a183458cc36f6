"""The gain of every part of profile ``fast``: ``python -m export.benchmarks.fast_ablation FOLDER...`` (sets with LR/ and HR/).

Prints a Markdown table of the mean gain over the backbone alone and of the seconds an image took.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from darsr_train.adaptation.options import FIT_STEPS, AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.measure import evaluate_image
from darsr_train.evaluation.sets import find_pairs

from .timing import parser, run

# Changes of the default options, by what they are called in the table.
VARIANTS: dict[str, dict] = {
    "as shipped": {},
    "without back-projection": {"rounds": 0},
    "six rounds of back-projection instead of three": {"rounds": 6},
    "without the family (the prior and back-projection)": {"family": False, "steps": 0},
    "without both (the prior)": {"family": False, "steps": 0, "rounds": 0},
    "the prior fitted to the blur instead, 80 steps": {"family": False, "steps": FIT_STEPS},
    "the family, then 80 steps of fit": {"steps": FIT_STEPS},
}


def measure(folders: list[Path], changes: dict, backbone_name: str, scale: int, limit: int | None) -> list[dict]:
    """Return a row of :func:`darsr_train.evaluation.measure.evaluate_image` for every image, with changed options."""
    backbone = replace(load_backbone(backbone_name, scale), sha256="")  # frozen: no networks of its own are told
    options = replace(AdaptOptions.profile("fast", scale), **changes)
    pairs = [pair for folder in folders for pair in find_pairs(folder)[:limit]]
    return [evaluate_image(pair.lr, pair.hr, backbone, options) for pair in pairs]


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
    options.add_argument("folders", type=Path, nargs="+", help="sets with LR/ and HR/")
    options.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="names of the table's rows")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    results = {}
    for name in given.only or VARIANTS:
        results[name] = measure(given.folders, VARIANTS[name], given.backbone, given.scale, given.limit)
        print(name, file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    run(main)
