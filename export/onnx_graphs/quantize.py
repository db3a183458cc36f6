"""int8 by Q/DQ nodes: convolutions in 8 bits, what is sensitive in float32.

Placed as TensorRT wants it: symmetric, weights by output channel, activations at the *inputs* of convolutions alone
(an output is rounded once, where the next convolution reads it), biases in float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from darsr_deploy.engines.ort import import_onnxruntime

from .precision import SUMS, WEIGHTED, sensitive

# Of all values, so many lie inside the range of an activation; the rest is clipped. Chosen by measurement.
_PERCENTILE = 99.999
# Layers behind the backbone's first that stay float32: what they get wrong, all others work on. Without, form global of an
# adapter that sharpens much has 42.6 dB, with one 42.8, with two 43.3, with eight 47. The more the slower: the first
# number with which a file passes its gate is taken.
EARLY = (2, 4, 8)


def quantize(model: ModelProto, feeds: Iterable[dict[str, np.ndarray]], early: int = EARLY[0]) -> ModelProto:
    """The network with its convolutions in int8, but those of :func:`excluded`.

    Args:
        model: float32; left alone.
        feeds: inputs by name, all of one size, that show which values occur.
        early: the backbone's layers that stay float32, behind its first.

    Raises:
        DarsrError: ONNX Runtime, whose quantizer this is, is not installed.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet():
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
    """Indices of the nodes that are not quantized.

    The sensitive ones, the backbone's early and last convolutions, the channel attentions, and the convolutions that read
    what an attention has weighted: its channels differ in range so much that one scale for all loses 3 dB.
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
    """The first convolutions behind the last one that makes features of a picture: the backbone's."""
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
def _quiet() -> Iterator[None]:
    """The quantizer prints its progress and advises a preparation that this graph does not need."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)
