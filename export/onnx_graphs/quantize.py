"""Quantize models to int8 with Q/DQ nodes: convolutions in 8 bits, sensitive layers in float32.

Placed as TensorRT wants it: symmetric, weights per output channel, activations only at the *inputs* of convolutions (so an
output is rounded once, where the next convolution reads it), biases in float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from darsr_deploy.engines.ort import import_onnxruntime

from .precision import SUMS, WEIGHTED, sensitive

_PERCENTILE = 99.999  # of an activation's values that lie inside its range; the rest is clipped
# Layers after the backbone's first that stay float32, since all others build on them. The fewest that pass the parity
# check are taken (docs/notebook.md has the figures).
EARLY = (2, 4, 8)


def quantize(model: ModelProto, feeds: Iterable[dict[str, np.ndarray]], early: int = EARLY[0]) -> ModelProto:
    """Return the network with its convolutions in int8, except those of :func:`excluded`.

    Args:
        model: float32; not changed.
        feeds: calibration inputs by name, all of one size.
        early: number of the backbone's layers after its first that stay float32.

    Raises:
        DarsrError: ONNX Runtime, which has the quantizer, is not installed.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            nodes_to_exclude=[model.graph.node[index].name for index in sorted(excluded(model, early))],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv", "ConvTranspose"],
                "CalibPercentile": _PERCENTILE,
            },
        )
        return onnx.load(target)


def excluded(model: ModelProto, early: int = EARLY[0]) -> set[int]:
    """Return the indices of the nodes that are not quantized.

    The sensitive ones, the backbone's early and last convolutions, the channel attentions, and the convolutions that read
    what an attention has weighted: its channels' ranges differ so much that one scale for all costs 3 dB.
    """
    graph = model.graph
    found = sensitive(model)
    behind = {name for index in found for name in graph.node[index].input}
    last = {i for i, n in enumerate(graph.node) if n.op_type in WEIGHTED and behind.intersection(n.output)}
    constants = {t.name for t in graph.initializer}
    pooled: set[str] = set()  # values of one pixel a channel
    weighted: set[str] = set()  # feature maps times these
    attention = set()
    for index, node in enumerate(graph.node):
        read = [name for name in node.input if name not in constants]
        if node.op_type in SUMS or (read and pooled.issuperset(read)):
            pooled.update(node.output)
            attention.add(index)
        elif node.op_type == "Mul" and pooled.intersection(read):
            weighted.update(node.output)
        elif node.op_type in WEIGHTED and weighted.intersection(read):
            attention.add(index)
    return found | last | attention | _early(model, found | last | attention, early)


def _early(model: ModelProto, others: set[int], count: int) -> set[int]:
    """Return the first convolutions after the last one that turns a picture into features: the backbone's."""
    nodes, weights = model.graph.node, {t.name: t.dims for t in model.graph.initializer}
    convolutions = [index for index, node in enumerate(nodes) if node.op_type in WEIGHTED]
    shapes = {index: weights.get(nodes[index].input[1], (0, 0)) for index in convolutions}
    # a 1x1 one is the skip, which only repeats the picture's channels
    heads = [i for i, dims in shapes.items() if dims[0] > 3 and dims[1] == 3 and dims[-1] > 1]
    return set([i for i in convolutions if heads and i > heads[-1] and i not in others][:count])


def _reader(feeds: Iterable[dict[str, np.ndarray]]):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    return Reader()


@contextlib.contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Silence stdout, warnings and a logger (the root's by default): exporter and quantizer talk even when all is well."""
    talking = logging.getLogger(logger)
    level = talking.level
    talking.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        talking.setLevel(level)
