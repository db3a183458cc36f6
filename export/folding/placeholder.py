"""A placeholder for an ONNX backbone while PyTorch exports what is before and after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darsr_train.backbones.onnx_network import OnnxNetwork

DOMAIN, NODE = "darsr", "Backbone"


class BackbonePlaceholder(nn.Module):
    """Exports as the symbolic node ``darsr::Backbone``, which the ONNX backbone's graph then replaces."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__()
        self.scale = network.scale

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        shape = (n, 3, height * self.scale, width * self.scale)
        return torch.onnx.ops.symbolic(f"{DOMAIN}::{NODE}", (x,), dtype=x.dtype, shape=shape, version=1)
