"""The whole way against the paper's: ``python -m export.benchmarks.pipeline``.

The paper's pipeline in PyTorch, layer by layer, and what ``darsr export`` writes for an adapter of profile ``fast``, in ONNX
Runtime. Same process, same number of threads, runs in turn. Weights are random where speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from onnx import ModelProto

from darsr_deploy.errors import DarsrError
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import SRFBN, load_backbone
from darsr_train.degradation import kernels
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.prior import load_prior
from darsr_train.pipeline import Pipeline, load_pipeline

from ..onnx_graphs.build import build_model
from ..onnx_graphs.rewrites import slopes_as_convolutions
from .timing import Setting, alternate, compared, in_ort, in_torch, machine, markdown

PAPER = "paper, PyTorch eager"


def paper_pipeline(scale: int) -> Pipeline:
    """DARM with 128 features and 72 filters, then SRFBN-S, as published; random weights."""
    return Pipeline(DARM(correction_dictionary(), channels=128), SRFBN(scale)).eval().requires_grad_(False)


def fast_pipeline(scale: int) -> Pipeline:
    """What profile ``fast`` makes of a blurred image: the prior's network, the default backbone, back-projection."""
    covariance = scale**2 * np.diag([0.5, 0.25])
    kernel = torch.from_numpy(kernels.estimated(covariance / (scale // 2) ** 2, scale)).float()
    stage = BackProjection(kernel, scale, AdaptOptions.profile("fast", scale).rounds)
    return Pipeline(load_prior(scale), load_backbone("edge", scale).module, stage).eval().requires_grad_(False)


def exported(pipeline: Pipeline) -> ModelProto:
    """What ``darsr export`` writes in fp32."""
    return slopes_as_convolutions(build_model(pipeline))


def ways(setting: Setting, fast: Pipeline) -> dict[str, Callable[[], object]]:
    """Every pipeline, the base of the comparison first."""
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
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # the exporter's, about layers that it has no use for
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="240x160", help="width x height of the LR image (240x160)")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 4))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="one table for each (1 and 2)")
    parser.add_argument("--repeats", type=int, default=9, help="runs that count; one before them warms up")
    parser.add_argument("--adapter", metavar="FILE", help="an adapter (.darsr) in the place of a typical one")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", arguments.size)
    if not size or min(arguments.repeats, *arguments.threads) < 1 or min(map(int, size.groups())) < 3:
        parser.error("--size is WIDTHxHEIGHT, at least 3x3; --threads and --repeats are at least 1")
    width, height = map(int, size.groups())
    setting = Setting(height, width, arguments.scale, repeats=arguments.repeats)
    try:
        fast = load_pipeline(arguments.adapter, scale=setting.scale)[0] if arguments.adapter else None
    except DarsrError as error:
        raise SystemExit(f"error: {error}") from error
    report = bench(setting, tuple(arguments.threads), fast)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    for table in report["tables"]:
        facts = table["machine"] | {"LR image": arguments.size}
        print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
        print(markdown("pipeline", PAPER, table["rows"]) + "\n")


if __name__ == "__main__":
    main()
