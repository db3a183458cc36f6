"""The networks that look at an image, in PyTorch: where ONNX Runtime is not installed, or on another device than the CPU."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from ..backbones import load_backbone
from ..networks.prior import load_prior
from .estimator import load_estimator


class TorchNetworks:
    """See :class:`darsr_deploy.blind.judgement.Networks`."""

    version: ClassVar = {"torch": torch.__version__}

    def __init__(self, scale: int, device: str = "cpu") -> None:
        self._device = device
        self._estimator = load_estimator().to(device)
        self._prior = load_prior(scale).to(device, memory_format=torch.channels_last)
        self._backbone = load_backbone("edge", scale, device).module

    @torch.inference_mode()
    def estimate(self, lr: np.ndarray) -> np.ndarray:
        """Return the estimator's 16 numbers."""
        return self._estimator(self._given(lr))[0].cpu().numpy()

    @torch.inference_mode()
    def restore(self, lr: np.ndarray) -> np.ndarray:
        """Return what the prior and the frozen backbone make of it: 1 x 3 x sH x sW, not clipped."""
        return self._backbone(self._prior(self._given(lr))).cpu().contiguous().numpy()

    def _given(self, lr: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(lr).to(self._device, memory_format=torch.channels_last)
