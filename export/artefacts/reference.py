"""Evaluate an ONNX file exactly as typed, where a runtime would silently compute in float32 instead.

ONNX Runtime's CPU provider has no bfloat16 arithmetic and computes most of float16 in float32, so a file that loses
accuracy on a GPU would look perfect there. The ONNX project's reference evaluator rounds after every operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

_TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Evaluation:
    """The output in float32, and the peak magnitude of all values by type (NaN counts as infinite)."""

    sr: np.ndarray
    peaks: dict[str, float]


def evaluate(model: ModelProto, feeds: dict[str, np.ndarray]) -> Evaluation:
    """Run a model operator by operator in the types it declares."""
    values = ReferenceEvaluator(model, new_ops=[Conv, ConvTranspose, Sigmoid]).run(None, feeds, intermediate=True)
    peaks: dict[str, float] = {}
    for value in values.values():
        if value is not None and value.dtype.name in _TORCH and value.size:
            peak = np.nan_to_num(np.abs(value.astype(np.float32)), nan=np.inf).max()
            peaks[value.dtype.name] = max(peaks.get(value.dtype.name, 0.0), float(peak))
    return Evaluation(values[model.graph.output[0].name].astype(np.float32), peaks)


class Conv(OpRun):
    """Convolution that accumulates in float32 and rounds once, as tensor cores do; the evaluator's own takes minutes."""

    op_domain = ""

    def _run(
        self, x, w, b=None, *, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None
    ):
        _require_explicit(auto_pad)
        padded = F.pad(_float(x), _torch_padding(pads))
        result = F.conv2d(padded, _float(w), _float(b), strides or 1, 0, dilations or 1, group or 1)
        return (_rounded(result, x.dtype),)


class ConvTranspose(OpRun):
    """Transposed convolution, as :class:`Conv`."""

    op_domain = ""

    def _run(
        self, x, w, b=None, *, auto_pad=None, dilations=None, group=None, kernel_shape=None, output_padding=None,
        output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        _require_explicit(auto_pad)
        top, left, bottom, right = pads or (0, 0, 0, 0)
        if (top, left) != (bottom, right) or output_shape:
            raise NotImplementedError("a transposed convolution with unequal padding")
        result = F.conv_transpose2d(
            _float(x), _float(w), _float(b), strides or 1, (top, left), output_padding or 0, group or 1, dilations or 1
        )
        return (_rounded(result, x.dtype),)


class Sigmoid(OpRun):
    """Sigmoid; the evaluator's own fails on bfloat16 in onnx 1.19 and warns of overflow in later versions."""

    op_domain = ""

    def _run(self, x):
        return (_rounded(_float(x).sigmoid(), x.dtype),)


def _require_explicit(auto_pad: str | None) -> None:
    if auto_pad not in (None, "NOTSET"):
        raise NotImplementedError(f"automatic padding {auto_pad}")


def _torch_padding(pads: list[int] | None) -> list[int]:
    """Convert top, left, bottom, right (ONNX) to left, right, top, bottom (PyTorch)."""
    top, left, bottom, right = pads or (0, 0, 0, 0)
    return [left, right, top, bottom]


def _float(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array.astype(np.float32))


def _rounded(result: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    return result.numpy().astype(dtype)
