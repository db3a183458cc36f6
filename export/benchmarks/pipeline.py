"""The whole pipeline against the paper's: ``python -m export.benchmarks.pipeline``.

The paper's pipeline in PyTorch, layer by layer, and what ``darsr export`` writes for an adapter of profile ``fast``, in ONNX
Runtime. Same process, same number of threads, runs in turn. Weights are random where speed does not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from darsr_deploy.degradation import kernels
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import SRFBN, load_backbone
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.prior import load_prior
from darsr_train.pipeline import Pipeline, load_pipeline

from .timing import Setting, alternate, compared, exported, heading, in_ort, in_torch, machine, markdown, parser, run

PAPER = "paper, PyTorch eager"


def paper_pipeline(scale: int) -> Pipeline:
    """Build DARM with 128 features and 72 filters, then SRFBN-S, as published; random weights."""
    return Pipeline(DARM(correction_dictionary(), channels=128), SRFBN(scale)).eval().requires_grad_(False)


def fast_pipeline(scale: int) -> Pipeline:
    """Build what profile ``fast`` makes of a blurred image: the prior's network, the default backbone, back-projection."""
    covariance = scale**2 * np.diag([0.5, 0.25])
    kernel = torch.from_numpy(kernels.estimated(covariance / (scale // 2) ** 2, scale)).float()
    stage = BackProjection(kernel, scale, AdaptOptions.profile("fast", scale).rounds)
    return Pipeline(load_prior(scale), load_backbone("edge", scale).module, stage).eval().requires_grad_(False)


def ways(setting: Setting, fast: Pipeline) -> dict[str, Callable[[], object]]:
    """Return every pipeline, the base of the comparison first."""
    x, threads, paper = setting.image(), setting.threads, paper_pipeline(setting.scale)
    without = Pipeline(fast.correction, fast.backbone).eval()
    made = {
        PAPER: in_torch(paper, x),
        "paper, ORT (exported)": in_ort(exported(paper), x, threads),
        "fast, PyTorch eager": in_torch(fast, x),
        "fast, ORT (exported)": in_ort(exported(fast), x, threads),
    }
    if fast.backprojection is not None:
        made["fast, no back-projection, ORT (exported)"] = in_ort(exported(without), x, threads)
    return made


def bench(setting: Setting, threads: tuple[int, ...], fast: Pipeline | None = None) -> dict:
    """Measure at each number of threads.

    Args:
        fast: the adapted pipeline; :func:`fast_pipeline` by default.

    Returns:
        ``{setting, tables: [{threads, machine, base, rows}]}``; rows as :func:`.timing.compared` gives them.
    """
    fast, tables = fast or fast_pipeline(setting.scale), []
    for count in threads:
        torch.set_num_threads(count)
        torch.manual_seed(0)
        rows = compared(alternate(ways(replace(setting, threads=count), fast), setting.repeats), PAPER)
        tables.append({"threads": count, "machine": machine(count), "base": PAPER, "rows": rows})
    return {"setting": asdict(setting), "tables": tables}


def main() -> None:
    """Print a table for each number of threads, or one JSON object."""
    options = parser(__doc__, size=(240, 160), scale=2, threads=[1, 2], repeats=9, json=False)
    options.add_argument("--adapter", metavar="FILE", help="an adapter (.darsr) in the place of a typical one")
    given = options.parse_args()
    width, height = given.size
    setting = Setting(height, width, given.scale, repeats=given.repeats)
    fast = load_pipeline(given.adapter, scale=setting.scale)[0] if given.adapter else None
    report = bench(setting, tuple(given.threads), fast)
    if given.json:
        print(json.dumps(report, indent=1))
        return
    for table in report["tables"]:
        print(heading(table["machine"] | {"LR image": f"{width}x{height}"}))
        print(markdown("pipeline", PAPER, table["rows"]) + "\n")


if __name__ == "__main__":
    run(main)
