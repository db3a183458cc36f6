"""Any super-resolution network as an ONNX file: checked, run in ONNX Runtime, never trained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.engines.ort import import_onnxruntime
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import METADATA_KEY, ModelSpec
from darsr_deploy.install import install

from .onnx_cost import multiply_adds, parameter_count
from .probe import check_range, probe_scale

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_WAY_OUT = "export it again as one input N x 3 x H x W and one output N x 3 x sH x sW, float32, H and W dynamic"


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
        self.model, self.what = model, what
        self.input, self.output = (value.name for value in _contract(model, what))
        self.batches = not _inputs(model)[0].type.tensor_type.shape.dim[0].HasField("dim_value")
        self._session = _open_session(model, what, torch.device(device).type)
        self.scale = probe_scale(self._run, what, self.batches)
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

    def parameter_count(self) -> int:
        return parameter_count(self.model)

    def macs_per_lr_pixel(self) -> int | None:
        """Multiply-adds per LR pixel, or None where the model's shapes cannot be inferred."""
        return multiply_adds(self.model)

    def _run(self, lr: np.ndarray) -> np.ndarray:
        return self._session.run([self.output], {self.input: lr})[0]


def load_onnx(path: Path, device: str | torch.device = "cpu") -> tuple[OnnxNetwork, dict, str]:
    """Load an ONNX file and check that it is a super-resolution network that can be used.

    Returns:
        ``(network, facts, sha256)``; the checksum covers the files that hold the weights of a large model too.

    Raises:
        DarsrError: onnx or onnxruntime is not installed, the file is damaged, or the network is of another form, range or
            scale.
    """
    model, sha256 = _read(path)
    network = OnnxNetwork(model, str(path), device)
    facts = {
        "licence": "as stated by the file's authors",
        "file": path.name,
        "opset": next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        "operators": sorted({node.op_type for node in model.graph.node}),
        "gradients": False,
    }
    return network, facts, sha256


def _read(path: Path) -> tuple[ModelProto, str]:
    try:
        import onnx
        from onnx import external_data_helper, inliner
        from onnx.checker import ValidationError
    except ImportError as error:
        raise DarsrError(
            str(path), f"an ONNX network needs {error.name}, which is not installed", install("export", "ort")
        ) from error
    from google.protobuf.message import DecodeError

    try:
        digest = hashlib.sha256(path.read_bytes())
        model = onnx.load(path, load_external_data=False)
        tensors = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
        beside = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        for name in sorted(beside):
            digest.update((path.parent / name).read_bytes())
        if model.functions:
            model = inliner.inline_local_functions(model)
        onnx.checker.check_model(model)
    except (OSError, DecodeError, ValidationError, ValueError) as error:
        why = str(error).strip().splitlines()
        raise DarsrError(
            str(path), f"is no ONNX file that can be used ({why[0][:200] if why else 'damaged'})", "export it again"
        ) from error
    own = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if own is not None and ModelSpec.from_json(own, str(path)).form != "none":
        raise DarsrError(
            str(path),
            "is an adapted model: its correction is inside",
            "run it with darsr infer --model, or give its backbone",
        )
    return model, digest.hexdigest()


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Inputs proper: old files list their weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _contract(model: ModelProto, what: str) -> tuple[ValueInfoProto, ValueInfoProto]:
    """The one input and the one output.

    Raises:
        DarsrError: another number of them, another type, another rank or channel count, or a fixed height or width.
    """
    from onnx import TensorProto

    inputs, outputs = _inputs(model), list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise DarsrError(what, f"has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each", _WAY_OUT)
    for role, value in (("input", inputs[0]), ("output", outputs[0])):
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            raise DarsrError(
                what, f"its {role} is {TensorProto.DataType.Name(kind).lower()}, expected float32", _WAY_OUT
            )
    dims = inputs[0].type.tensor_type.shape.dim
    shape = (
        " x ".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims) or "of no shape"
    )
    fixed = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    if len(dims) != 4 or fixed[1] not in (None, 3):
        raise DarsrError(what, f"its input is {shape}, expected N x 3 x H x W", _WAY_OUT)
    if fixed[2:] != [None, None] or fixed[0] not in (None, 1):
        raise DarsrError(what, f"its input is {shape}: height, width or batch size is fixed", _WAY_OUT)
    return inputs[0], outputs[0]


def _open_session(model: ModelProto, what: str, device: str):
    ort = import_onnxruntime()
    provider = {"cuda": "CUDAExecutionProvider"}.get(device, "CPUExecutionProvider")
    if provider not in ort.get_available_providers():
        raise DarsrError(
            what, f"the installed ONNX Runtime has no {provider}", f"use --device cpu, or {install('gpu')}"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
        raise DarsrError(
            what, f"ONNX Runtime cannot load it ({str(error).splitlines()[0][:200]})", "export it again"
        ) from error
