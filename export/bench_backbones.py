"""Speed of the backbones in PyTorch and in ONNX Runtime on a CPU: ``python -m export.bench_backbones``.

Whole networks, the operators that :mod:`.subpixel` rewrites, and ways to compute the default network's activations. The
weights are random, which is all the same for speed. Runs alternate in one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import onnxruntime
import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_train.backbones import SRFBN, EdgeSR, load_backbone
from darsr_train.pipeline import Pipeline

from .layers import replace_layers, single_slopes
from .subpixel import from_phases, rewrite, strided_to_subpixel, to_phases, transposed_to_subpixel
from .timing import alternate, compared, machine, markdown
from .to_onnx import OPSET, build_model

_EDGE_BLOCKS = (13, 10)  # of 32 channels: the default network, and the first one that was shipped
_PROJECTION = {2: (6, 2, 2), 4: (8, 4, 2)}  # kernel size, stride, padding of SRFBN's, by scale
_CHANNELS = 32


@dataclass(frozen=True)
class Setting:
    """Size of the LR image in pixels, scale, threads of both runtimes, and how often everything runs."""

    height: int = 160
    width: int = 240
    scale: int = 2
    threads: int = 1
    repeats: int = 7

    def image(self, channels: int = 3, scale: int = 1) -> Tensor:
        return torch.rand(1, channels, scale * self.height, scale * self.width)


def in_torch(module: nn.Module, x: Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> Tensor:
        return module(x)

    return run


def in_ort(
    model: nn.Module | ModelProto, x: Tensor, threads: int, level: str = "ALL", spinning: bool = True
) -> Callable[[], object]:
    """An ONNX model, or a module as PyTorch exports it with nothing folded, in ONNX Runtime on the CPU."""
    if isinstance(model, nn.Module):
        model = torch.onnx.export(model.eval(), (x,), dynamo=True, opset_version=OPSET, verbose=False).model_proto
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {model.graph.input[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0]


def exported(backbone: nn.Module) -> ModelProto:
    """What ``darsr export`` writes for a backbone alone."""
    return build_model(Pipeline(nn.Identity(), backbone).eval())


def random_edge(scale: int, blocks: int) -> EdgeSR:
    """The default network with random weights and, as in a trained one, a slope of its own for every channel."""
    network = EdgeSR(scale, _CHANNELS, blocks)
    for activation in network.activations:
        nn.init.uniform_(activation.weight, 0.0, 0.5)
    return network.eval().requires_grad_(False)


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
    for blocks in _EDGE_BLOCKS:
        edge = random_edge(scale, blocks)
        ways[f"edge-x{scale}, {blocks} blocks, PyTorch eager"] = in_torch(edge, x)
        ways[f"edge-x{scale}, {blocks} blocks, ORT (exported)"] = in_ort(exported(edge), x, threads)
    return {f"networks, x{scale}": ways}


class _SpaceToDepth(nn.Module):
    """ONNX's operator itself, which PyTorch's pixel unshuffle does not become. For export only."""

    def __init__(self, s: int) -> None:
        super().__init__()
        self.s = s

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        shape = (n, c * self.s**2, h // self.s, w // self.s)
        return torch.onnx.ops.symbolic("SpaceToDepth", (x,), {"blocksize": self.s}, dtype=x.dtype, shape=shape)


def operators(setting: Setting) -> dict[str, dict[str, Callable[[], object]]]:
    """One transposed and one strided convolution of SRFBN-S at this scale, as it is and rewritten."""
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


class _MaxMin(nn.Module):
    """PReLU as ``max(x, 0) + a min(x, 0)``."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes[:, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.slopes * x.clamp(max=0)


class _Depthwise(nn.Module):
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
    """The default network with its activations computed in other ways, and with other options of ONNX Runtime."""
    x, threads = setting.image(), setting.threads
    edge = random_edge(setting.scale, _EDGE_BLOCKS[0])

    def with_activations(make: Callable[[Tensor], nn.Module]) -> nn.Module:
        return replace_layers(edge, lambda layer: make(layer.weight) if isinstance(layer, nn.PReLU) else None)

    return {
        f"edge-x{setting.scale}, {_EDGE_BLOCKS[0]} blocks, in ORT": {
            "PReLU, a slope for each channel": in_ort(edge, x, threads),
            "max(x, 0) + a min(x, 0), equal": in_ort(with_activations(_MaxMin), x, threads),
            "relu((1 - a) x) + a x depthwise, equal": in_ort(with_activations(_Depthwise), x, threads),
            "LeakyReLU: one slope for each layer": in_ort(with_activations(lambda _: nn.LeakyReLU(0.1)), x, threads),
            "ReLU": in_ort(with_activations(lambda _: nn.ReLU()), x, threads),
            "PReLU, graph level extended (no NCHWc layout)": in_ort(edge, x, threads, level="EXTENDED"),
            "PReLU, threads do not spin": in_ort(edge, x, threads, spinning=False),
        }
    }


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
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--srfbn", metavar="FILE", help="SRFBN-S weights (darsr backbone import); random by default")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", arguments.size)
    if not size or min(arguments.threads, arguments.repeats) < 1:
        parser.error("--size is WIDTHxHEIGHT; --threads and --repeats are at least 1")
    width, height = map(int, size.groups())
    setting = Setting(height, width, arguments.scale, arguments.threads, arguments.repeats)
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
