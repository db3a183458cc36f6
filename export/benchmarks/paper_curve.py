"""Profile ``paper`` beside the backbone alone and ``fast``, over its steps: ``python -m export.benchmarks.paper_curve SET...``.

Adapts to the LR images of sets with ground truth and measures, whenever an average of the iterates is judged, the Y-PSNR of
the iterate, of the average, and of the average at the strength that was judged best. The truth is only compared with. Rows are kept in ``--work`` as they are made, beside
the state of the unfinished run: killed and called again, it goes on where it was, to the same rows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from darsr_deploy.images.arrays import read_image
from darsr_deploy.images.metrics import psnr_y
from darsr_train.adaptation.checkpoint import Checkpoint
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.adaptation.paper import adapt_paper
from darsr_train.adaptation.published.judging import Average, correction_at
from darsr_train.adaptation.published.step import Networks
from darsr_train.adaptation.result import Result
from darsr_train.backbones import Backbone, load_backbone
from darsr_train.evaluation.measure import check_truth, evaluate_image
from darsr_train.evaluation.sets import Pair, find_pairs
from darsr_train.pipeline import Pipeline, upscale_with

from .timing import parser, run

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the steps: what the table shows of the curve


def measure(pair: Pair, backbone: Backbone, options: AdaptOptions, work: Path) -> dict:
    """Adapt to one image, or finish what was begun, and return its curve, its result and what to compare it with.

    Returns:
        ``backbone, fast, kept`` in dB; ``chosen``; ``seconds`` of processor time; ``curve``, rows of ``step, seconds,
        iterate, average, strength, judged`` (dB); ``cycles``, the judge's scores; ``best`` of them, and ``uncorrected``; ``kernel``.
    """
    done = work / f"{pair.lr.stem}.json"
    if done.exists():
        return json.loads(done.read_text())
    lr, hr = check_truth(pair.lr, pair.hr, backbone.scale)
    rows = work / f"{pair.lr.stem}.jsonl"
    started = time.process_time()

    def compare(correction: nn.Module) -> float:
        return psnr_y(upscale_with(Pipeline(correction, backbone.module), lr), hr, backbone.scale)

    def watch(step: int, nets: Networks, average: Average, strength: float) -> None:
        nonlocal started
        row = {"step": step, "seconds": time.process_time() - started}
        row |= {"iterate": compare(nets.darm), "average": compare(average.darm), "strength": strength}
        row["judged"] = row["average"] if strength == 1 else compare(correction_at(average.darm, strength))
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        started = time.process_time()  # what comparing takes does not count

    unfinished = work / f"{pair.lr.stem}.partial"
    identity = json.dumps([options.to_json(), backbone.sha256, str(pair.lr)])
    checkpoint = Checkpoint(unfinished, identity, resume=True)
    result = adapt_paper(read_image(pair.lr), backbone.module, options, "cpu", checkpoint, lambda _: None, watch)
    # the rows since the last saved state were made twice, alike but for the seconds
    curve = {row["step"]: row for row in map(json.loads, rows.read_text().splitlines())}
    fast = evaluate_image(pair.lr, pair.hr, backbone, AdaptOptions.profile("fast", backbone.scale))
    found = {"set": pair.lr.parent.parent.name, "name": pair.lr.stem}
    found |= {"backbone": fast["psnr_y_backbone"], "fast": fast["psnr_y"], **_kept(result, curve, fast)}
    found |= {"seconds": sum(row["seconds"] for row in curve.values()), "curve": list(curve.values())}
    found |= {"cycles": result.facts["losses"]["cycles of the average"]["means"], **result.facts["judged"]}
    found["kernel"] = result.arrays["kernel"].tolist()
    done.write_text(json.dumps(found))
    checkpoint.remove()
    return found


def _kept(result: Result, curve: dict[int, dict], fast: dict) -> dict:
    """Return the Y-PSNR of what the run kept, and what that is."""
    chosen = result.facts["chosen"]
    kept = fast["psnr_y_backbone"] if result.correction == "none" else curve[int(chosen.split()[1])]["judged"]
    return {"kept": kept, "chosen": chosen}


def table(found: list[dict], steps: int) -> str:
    """Return Markdown: Y-PSNR of every image over the steps, of what was kept, of the backbone alone and of ``fast``."""
    at = [f"step {round(share * steps)}" for share in SHARES]
    heads = ["image", "backbone alone", *at, "kept", "gain", "last iterate", "fast", "minutes"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    rows = []
    for image in found:
        judged = {row["step"]: row["judged"] for row in image["curve"]}
        over = [judged[min(judged, key=lambda step: abs(step - share * steps))] for share in SHARES]
        last = image["curve"][-1]["iterate"]
        gain = image["kept"] - image["backbone"]
        rows.append([image["backbone"], *over, image["kept"], gain, last, image["fast"], image["seconds"] / 60])
    names = [f"`{image['set']}` {image['name']}" for image in found]
    for name, figures in zip([*names, "mean"], [*rows, np.mean(rows, axis=0)]):
        *decibels, minutes = figures
        cells = [f"{value:+.2f}" if head == "gain" else f"{value:.2f}" for head, value in zip(heads[1:], decibels)]
        lines.append("| " + " | ".join([name, *cells, f"{minutes:.0f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table."""
    options = parser(__doc__, backbone="edge", scale=2, threads=None)
    options.add_argument("folders", type=Path, nargs="+", help="sets with LR/ and HR/")
    options.add_argument("--only", nargs="+", metavar="NAME", help="images, without the suffix")
    options.add_argument("--steps", type=int, default=800)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--crop", type=int, default=32, help="side of an LR crop in pixels")
    options.add_argument("--work", type=Path, default=Path("paper_curve"), help="where rows and states are kept")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    given.work.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(given.backbone, given.scale)
    sizes = {"steps": given.steps, "batch": given.batch, "crop": given.crop}
    chosen, found = AdaptOptions.profile("paper", given.scale, **sizes), []
    for pair in (pair for folder in given.folders for pair in find_pairs(folder)):
        if given.only and pair.lr.stem not in given.only:
            continue
        found.append(measure(pair, backbone, chosen, given.work))
        print(f"{pair.lr.stem}: {found[-1]['kept']:.2f} dB, {found[-1]['chosen']}", file=sys.stderr)
    print(table(found, given.steps))


if __name__ == "__main__":
    run(main)
