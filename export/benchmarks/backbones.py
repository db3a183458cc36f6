"""Speed of the backbones in PyTorch and in ONNX Runtime on a CPU: ``python -m export.benchmarks.backbones``.

Whole networks, the operators that :mod:`export.folding.subpixel` rewrites, and ways to compute the default network's activations. The
weights are random, which is all the same for speed. Runs alternate in one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict

import torch
from onnx import ModelProto
from torch import nn

from darsr_deploy.errors import DarsrError
from darsr_train.backbones import SRFBN, load_backbone
from darsr_train.pipeline import Pipeline

from ..folding.layers import single_slopes
from ..folding.subpixel import rewrite
from ..onnx_graphs.build import build_model
from ..onnx_graphs.rewrites import slopes_as_convolutions
from .backbone_parts import activations, operators, random_edge
from .timing import Setting, alternate, compared, in_ort, in_torch, machine, markdown


def exported(backbone: nn.Module) -> ModelProto:
    """What ``darsr export`` writes for a backbone alone."""
    return slopes_as_convolutions(build_model(Pipeline(nn.Identity(), backbone).eval()))


def networks(setting: Setting, srfbn: nn.Module) -> dict[str, dict[str, Callable[[], object]]]:
    """SRFBN-S in every form and the default network; the base of the table comes first."""
    x, scale, threads = setting.image(), setting.scale, setting.threads
    leaky = single_slopes(srfbn)
    ways = {
        "SRFBN-S, PyTorch eager": in_torch(srfbn, x),
        "SRFBN-S, ORT, as it is": in_ort(srfbn, x, threads),
        "SRFBN-S, ORT, transposed rewritten": in_ort(rewrite(srfbn), x, threads),
        "SRFBN-S, ORT, both rewritten": in_ort(rewrite(srfbn, strided=True), x, threads),
        "SRFBN-S, ORT, LeakyReLU": in_ort(leaky, x, threads),
        "SRFBN-S, ORT, LeakyReLU, transposed rewritten": in_ort(rewrite(leaky), x, threads),
        "SRFBN-S, ORT, LeakyReLU, both on phases (exported)": in_ort(exported(srfbn), x, threads),
    }
    for blocks in setting.blocks:
        edge = random_edge(scale, blocks)
        ways[f"edge-x{scale}, {blocks} blocks, PyTorch eager"] = in_torch(edge, x)
        ways[f"edge-x{scale}, {blocks} blocks, ORT (exported)"] = in_ort(exported(edge), x, threads)
    return {f"networks, x{scale}": ways}


TABLES = {"networks": networks, "operators": operators, "activations": activations}


def bench(setting: Setting, tables: tuple[str, ...] = tuple(TABLES), srfbn: nn.Module | None = None) -> dict:
    """Measure the named tables.

    Args:
        srfbn: the SRFBN-S to measure; one with random weights by default.

    Returns:
        ``{machine, setting, tables: [{title, base, rows}]}``; rows as :func:`.timing.compared` gives them, each compared
        with the first of its table.
    """
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    srfbn = (srfbn or SRFBN(setting.scale)).eval().requires_grad_(False)
    measured = []
    for table in tables:
        groups = networks(setting, srfbn) if table == "networks" else TABLES[table](setting)
        for title, ways in groups.items():
            base = next(iter(ways))
            rows = compared(alternate(ways, setting.repeats), base)
            measured.append({"title": title, "base": base, "rows": rows})
    return {"machine": machine(setting.threads), "setting": asdict(setting), "tables": measured}


def main() -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # the exporter's, about layers that it has no use for
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="240x160", help="width x height of the LR image (240x160)")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 4))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="runs that count; one before them warms up")
    parser.add_argument("--blocks", type=int, nargs="+", default=[13, 10], help="of the default network (13 and 10)")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--srfbn", metavar="FILE", help="SRFBN-S weights (darsr backbone import); random by default")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", arguments.size)
    if not size or min(arguments.threads, arguments.repeats, *arguments.blocks) < 1:
        parser.error("--size is WIDTHxHEIGHT; --threads, --repeats and --blocks are at least 1")
    width, height = map(int, size.groups())
    counts = (arguments.scale, arguments.threads, arguments.repeats, tuple(arguments.blocks))
    setting = Setting(height, width, *counts)
    try:
        srfbn = load_backbone(arguments.srfbn, setting.scale).module if arguments.srfbn else None
    except DarsrError as error:
        raise SystemExit(f"error: {error}") from error
    if srfbn is not None and not isinstance(srfbn, SRFBN):
        raise SystemExit(f"error: {arguments.srfbn}: is no SRFBN-S; leave out --srfbn for random weights")
    report = bench(setting, tuple(arguments.tables), srfbn)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in (report["machine"] | {"LR image": arguments.size}).items()))
    for table in report["tables"]:
        print("\n" + markdown(table["title"], table["base"], table["rows"]))


if __name__ == "__main__":
    main()
