"""Speed of the backbones in PyTorch and in ONNX Runtime on a CPU: ``python -m export.benchmarks.backbones``.

Whole networks, the operators that :mod:`export.folding.subpixel` rewrites, and ways to compute the default network's
activations. The weights are random, which does not change the speed. Runs alternate in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_train.backbones import SRFBN, EdgeSR, load_backbone
from darsr_train.pipeline import Pipeline

from ..folding.layers import replace_layers, single_slopes
from ..folding.subpixel import from_phases, rewrite, strided_to_subpixel, to_phases, transposed_to_subpixel
from .timing import (
    Setting,
    alternate,
    as_onnx,
    compared,
    exported,
    heading,
    in_ort,
    in_torch,
    machine,
    markdown,
    parser,
    run,
)

_PROJECTION = {2: (6, 2, 2), 4: (8, 4, 2)}  # kernel size, stride, padding of SRFBN's, by scale
_CHANNELS = 32


def random_edge(scale: int, blocks: int) -> EdgeSR:
    """Return the default network with random weights and, as in a trained one, a slope for every channel."""
    network = EdgeSR(scale, _CHANNELS, blocks)
    for activation in network.activations:
        nn.init.uniform_(activation.weight, 0.0, 0.5)
    return network.eval().requires_grad_(False)


class _SpaceToDepth(nn.Module):
    """ONNX's own operator, which PyTorch's pixel unshuffle is not exported as. For export only."""

    def __init__(self, s: int) -> None:
        super().__init__()
        self.s = s

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        shape = (n, c * self.s**2, h // self.s, w // self.s)
        return torch.onnx.ops.symbolic("SpaceToDepth", (x,), {"blocksize": self.s}, dtype=x.dtype, shape=shape)


def operators(setting: Setting) -> dict[str, dict[str, Callable[[], object]]]:
    """Return one transposed and one strided convolution of SRFBN-S at this scale, as it is and rewritten."""
    s, threads = setting.scale, setting.threads
    small, large = setting.image(_CHANNELS), setting.image(_CHANNELS, s)
    up = nn.ConvTranspose2d(_CHANNELS, _CHANNELS, *_PROJECTION[s]).requires_grad_(False)
    down = nn.Conv2d(_CHANNELS, _CHANNELS, *_PROJECTION[s]).requires_grad_(False)
    return {
        f"transposed, x{s}": {
            "ORT, as it is": in_ort(up, small, threads),
            "ORT, convolution and depth-to-space": in_ort(transposed_to_subpixel(up), small, threads),
            "ORT, convolution to phases": in_ort(to_phases(up), small, threads),
            "PyTorch, as it is": in_torch(up, small),
            "PyTorch, convolution and pixel shuffle": in_torch(transposed_to_subpixel(up), small),
        },
        f"strided, x{s}": {
            "ORT, as it is": in_ort(down, large, threads),
            "ORT, space-to-depth and convolution": in_ort(
                nn.Sequential(_SpaceToDepth(s), from_phases(down)), large, threads
            ),
            "ORT, pixel unshuffle as exported, and convolution": in_ort(strided_to_subpixel(down), large, threads),
            "ORT, convolution from phases": in_ort(from_phases(down), setting.image(_CHANNELS * s * s), threads),
            "PyTorch, as it is": in_torch(down, large),
            "PyTorch, pixel unshuffle and convolution": in_torch(strided_to_subpixel(down), large),
        },
    }


class MaxMin(nn.Module):
    """PReLU as ``max(x, 0) + a min(x, 0)``."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes[:, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.slopes * x.clamp(max=0)


class Depthwise(nn.Module):
    """PReLU as ``relu((1 - a) x) + a x`` for slopes of at most 1, both factors as depthwise convolutions."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.ParameterList(
            nn.Parameter(factor[:, None, None, None], requires_grad=False) for factor in (1 - slopes, slopes)
        )

    def forward(self, x: Tensor) -> Tensor:
        bent, straight = (F.conv2d(x, factor, groups=x.shape[1]) for factor in self.slopes)
        return F.relu(bent) + straight


def activations(setting: Setting) -> dict[str, dict[str, Callable[[], object]]]:
    """Return the default network with its activations computed in other ways, and with other options of ONNX Runtime."""
    x, threads = setting.image(), setting.threads
    blocks = setting.blocks[0]
    edge = random_edge(setting.scale, blocks)
    model = as_onnx(edge, x)

    def with_activations(make: Callable[[Tensor], nn.Module]) -> nn.Module:
        return replace_layers(edge, lambda layer: make(layer.weight) if isinstance(layer, nn.PReLU) else None)

    return {
        f"edge-x{setting.scale}, {blocks} blocks, in ORT": {
            "PReLU, a slope for each channel": in_ort(model, x, threads),
            "max(x, 0) + a min(x, 0), equal": in_ort(with_activations(MaxMin), x, threads),
            "relu((1 - a) x) + a x depthwise, equal": in_ort(with_activations(Depthwise), x, threads),
            "LeakyReLU: one slope for each layer": in_ort(with_activations(lambda _: nn.LeakyReLU(0.1)), x, threads),
            "ReLU": in_ort(with_activations(lambda _: nn.ReLU()), x, threads),
            "PReLU, graph level extended (no NCHWc layout)": in_ort(model, x, threads, level="EXTENDED"),
            "PReLU, threads do not spin": in_ort(model, x, threads, spinning=False),
        }
    }


def _exported(backbone: nn.Module) -> ModelProto:
    return exported(Pipeline(nn.Identity(), backbone))


def networks(setting: Setting, srfbn: nn.Module) -> dict[str, dict[str, Callable[[], object]]]:
    """Return SRFBN-S in every form and the default network; the base of the table comes first."""
    x, scale, threads = setting.image(), setting.scale, setting.threads
    leaky = single_slopes(srfbn)
    ways = {
        "SRFBN-S, PyTorch eager": in_torch(srfbn, x),
        "SRFBN-S, ORT, as it is": in_ort(srfbn, x, threads),
        "SRFBN-S, ORT, transposed rewritten": in_ort(rewrite(srfbn), x, threads),
        "SRFBN-S, ORT, both rewritten": in_ort(rewrite(srfbn, strided=True), x, threads),
        "SRFBN-S, ORT, LeakyReLU": in_ort(leaky, x, threads),
        "SRFBN-S, ORT, LeakyReLU, transposed rewritten": in_ort(rewrite(leaky), x, threads),
        "SRFBN-S, ORT, LeakyReLU, both on phases (exported)": in_ort(_exported(srfbn), x, threads),
    }
    for blocks in setting.blocks:
        edge = random_edge(scale, blocks)
        ways[f"edge-x{scale}, {blocks} blocks, PyTorch eager"] = in_torch(edge, x)
        ways[f"edge-x{scale}, {blocks} blocks, ORT (exported)"] = in_ort(_exported(edge), x, threads)
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
    """Print the tables, or one JSON object."""
    options = parser(__doc__, size=(240, 160), scale=2, threads=1, repeats=7, blocks=[13, 10], json=False)
    options.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    options.add_argument("--srfbn", metavar="FILE", help="SRFBN-S weights (darsr backbone import); random by default")
    given = options.parse_args()
    width, height = given.size
    setting = Setting(height, width, given.scale, given.threads, given.repeats, tuple(given.blocks))
    srfbn = load_backbone(given.srfbn, setting.scale).module if given.srfbn else None
    if srfbn is not None and not isinstance(srfbn, SRFBN):
        raise DarsrError(given.srfbn, "is not an SRFBN-S", "leave out --srfbn for random weights")
    report = bench(setting, tuple(given.tables), srfbn)
    if given.json:
        print(json.dumps(report, indent=1))
        return
    print(heading(report["machine"] | {"LR image": f"{width}x{height}"}))
    for table in report["tables"]:
        print(markdown(table["title"], table["base"], table["rows"]) + "\n")


if __name__ == "__main__":
    run(main)
