"""A foreign super-resolution network as an ONNX file: checked, run in ONNX Runtime, never trained."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.engines.ort import import_onnxruntime
from darsr_deploy.engines.trial import try_model
from darsr_deploy.errors import DarsrError
from darsr_deploy.install import install

from .onnx_cost import multiply_adds, parameter_count
from .onnx_file import read_onnx
from .onnx_graph import convert_opset, opset_of, take_any_size, widen_float16
from .probe import UnsupportedSize, check_range, find_scale, picture

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_HINT = "export it again as one input N x 3 x H x W and one output N x 3 x sH x sW, float32, H and W dynamic"
_CHANNELS_LAST = "takes and gives the channels last (N x H x W x 3), expected N x 3 x H x W"
_FLOAT16 = 10  # TensorProto.FLOAT16
_SAME = 1e-3  # largest difference that a conversion may make, in [0, 1]


class OnnxNetwork(nn.Module):
    """An ONNX model as a frozen network: N x 3 x H x W RGB in [0, 1] -> N x 3 x sH x sW.

    It computes in ONNX Runtime, on the CPU or, where ``device`` says so, on CUDA. No gradient passes through it.

    Attributes:
        model: the ``ModelProto``, its weights and no local functions in it; what is exported.
        scale: 2 or 4, found by running it.
        batches: False where the model's batch size is fixed at 1 (a batch is then run one by one).
    """

    differentiable = False

    def __init__(self, model: ModelProto, what: str, device: str | torch.device = "cpu") -> None:
        super().__init__()
        device = torch.device(device).type
        if any(v.type.tensor_type.elem_type == _FLOAT16 for v in (*model.graph.input, *model.graph.output)):
            widen_float16(model)
        self.model, self.what = model, what
        self.input, self.output, self.batches = check_contract(model, what)
        try_model(model.SerializeToString(), self.input, 2 if self.batches else 1, what)
        self._session = _open_session(model, what, device)
        self.scale, multiple = self._probe()
        if multiple > 1:
            self.model = take_any_size(self.in_opset(max(opset_of(model), 11)), self.scale, multiple)
            self.input, self.output, _ = check_contract(self.model, what)
            self._session = _open_session(self.model, what, device)
        check_range(self._run, what, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise DarsrError(self.what, "gives no gradients, and a loss asks for them", "give PyTorch weights instead")
        batch = x.detach().float().cpu().contiguous().numpy()
        parts = [batch] if self.batches else np.split(batch, len(batch))
        try:
            sr = np.concatenate([self._run(part) for part in parts])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
            raise DarsrError(
                self.what,
                f"ONNX Runtime cannot run it on {x.shape[3]}x{x.shape[2]} pixels ({str(error).splitlines()[0][:200]})",
                "give a network that takes any size",
            ) from error
        return torch.from_numpy(sr).to(x.device, x.dtype)

    def in_opset(self, opset: int) -> ModelProto:
        """Return the model in a newer opset, after a check that it still computes the same picture.

        Raises:
            DarsrError: onnx cannot convert it, or converts it to another network.
        """
        old = opset_of(self.model)
        if old == opset:
            return self.model
        failed = f"cannot be converted from opset {old} to {opset}"
        try:
            model = convert_opset(self.model, opset)
        except Exception as error:  # the converter raises RuntimeError and its own
            why = str(error).strip().splitlines()[0][:200]
            raise DarsrError(self.what, f"{failed} ({why})", "export it again") from error
        lr = picture(64, 64)  # any multiple that height and width may have to be
        sr = _open_session(model, self.what, "cpu").run([self.output], {self.input: lr})[0]
        error = np.abs(sr - self._run(lr)).max()
        if not error < _SAME:
            why = f"{failed}: the result differs by up to {255 * error:.1f} grey levels"
            raise DarsrError(self.what, why, f"export it again with opset {opset}")
        return model

    def parameter_count(self) -> int:
        """Return the number of floating-point weights."""
        return parameter_count(self.model)

    def macs_per_lr_pixel(self) -> int | None:
        """Return the multiply-adds per LR pixel, or None where the model's shapes cannot be inferred."""
        return multiply_adds(self.model)

    def _probe(self) -> tuple[int, int]:
        """Return the scale, and what height and width have to be multiples of."""
        try:
            return find_scale(self._run, self.what, self.batches)
        except UnsupportedSize as error:
            lr = np.ascontiguousarray(picture(24, 20).transpose(0, 2, 3, 1))
            last = False
            with contextlib.suppress(Exception):  # whatever it raises: the first error stands
                last = self._run(lr).shape[-1] == 3
            if last:
                raise DarsrError(self.what, _CHANNELS_LAST, _HINT) from error
            raise

    def _run(self, lr: np.ndarray) -> np.ndarray:
        return self._session.run([self.output], {self.input: lr})[0]


def load_onnx(path: Path, device: str | torch.device = "cpu") -> tuple[OnnxNetwork, dict, str]:
    """Load an ONNX file and check that it is a usable super-resolution network.

    Returns:
        ``(network, facts, sha256)``; the checksum covers the files that hold the weights of a large model too.

    Raises:
        DarsrError: onnx or onnxruntime is not installed, the file is damaged, or the network is of another form, range or
            scale.
    """
    model, sha256 = read_onnx(path)
    facts = {
        "licence": "as stated by the file's authors",
        "file": path.name,
        "opset": opset_of(model),
        "operators": sorted({node.op_type for node in model.graph.node}),
        "gradients": False,
    }
    return OnnxNetwork(model, str(path), device), facts, sha256


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Return the inputs proper: old files list their weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def check_contract(model: ModelProto, what: str) -> tuple[str, str, bool]:
    """Return the names of the one input and the one output, and whether any batch size goes.

    Raises:
        DarsrError: another number of them, another type, another rank or channel count, or a fixed height or width.
    """
    from onnx import TensorProto

    inputs, outputs = _inputs(model), list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise DarsrError(what, f"has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each", _HINT)
    for role, value in (("input", inputs[0]), ("output", outputs[0])):
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            known = kind in TensorProto.DataType.values()
            name = TensorProto.DataType.Name(kind).lower() if known else f"of type {kind}"
            raise DarsrError(what, f"its {role} is {name}, expected float32 or float16", _HINT)
    dims = inputs[0].type.tensor_type.shape.dim
    fixed = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    shape = " x ".join(str(d.dim_param or "?" if f is None else f) for d, f in zip(dims, fixed)) or "of no shape"
    if len(dims) == 4 and fixed[3] == 3 and fixed[1] != 3:
        raise DarsrError(what, f"its input is {shape}: it {_CHANNELS_LAST}", _HINT)
    if len(dims) != 4 or fixed[1] not in (None, 3):
        raise DarsrError(what, f"its input is {shape}, expected N x 3 x H x W", _HINT)
    if fixed[2:] != [None, None] or fixed[0] not in (None, 1):
        raise DarsrError(what, f"its input is {shape}: height, width or batch size is fixed", _HINT)
    return inputs[0].name, outputs[0].name, fixed[0] is None


def _open_session(model: ModelProto, what: str, device: str):
    ort = import_onnxruntime()
    provider = {"cuda": "CUDAExecutionProvider"}.get(device, "CPUExecutionProvider")
    if provider not in ort.get_available_providers():
        raise DarsrError(
            what, f"the installed ONNX Runtime has no {provider}", f"use --device cpu, or {install('gpu')}"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is in the exception
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
        raise DarsrError(
            what, f"ONNX Runtime cannot load it ({str(error).splitlines()[0][:200]})", "export it again"
        ) from error
