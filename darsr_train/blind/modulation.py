"""Networks that are told the degradation: a backbone with scales and shifts, and the family of correction networks.

A small network maps a :class:`.condition.Condition` to a scale and a shift for every channel after every convolution of the
backbone (feature-wise linear modulation: Perez et al., "FiLM", AAAI 2018; for restoration He et al., "AdaFM", CVPR 2019).
For a given condition both fold into the convolutions, so what is exported costs what the plain network costs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.bundle.shipped import REGIMES, modulated_path
from darsr_deploy.degradation.condition import SIZE, Condition
from darsr_deploy.files.container import read_container, write_container

from ..backbones import Backbone
from ..backbones.edge import EdgeSR
from ..networks.darm import DARM
from ..networks.family import DarmFamily

VERSION = 1


class Modulated(nn.Module):
    """A correction family and a modulated :class:`EdgeSR`, trained together.

    Args:
        family: the correction networks, which are told the covariance alone so far; extended to whole conditions.
        backbone: the network to start from; its weights are trained on as well.
        hidden: units of both hidden layers of the small network.

    Attributes:
        sha256: of the file that they were loaded from.
        neutral_sha256: of the file of the frozen backbone, which takes their place where nothing is to be corrected.
    """

    sha256 = neutral_sha256 = ""

    def __init__(self, family: DarmFamily, backbone: EdgeSR, hidden: int = 64) -> None:
        super().__init__()
        self.family, self.backbone = family, backbone
        self.widths = [layer.out_channels for layer in (*backbone.body, backbone.tail)]
        last = nn.Linear(hidden, 2 * sum(self.widths))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.modulator = nn.Sequential(nn.Linear(SIZE, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)

    def vector(self, condition: Condition) -> Tensor:
        """Return a condition as these networks take it: 7 numbers."""
        return torch.as_tensor(condition.vector(), dtype=torch.float32, device=self.family.common.device)

    def scales_and_shifts(self, vector: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one scale and one shift for every channel of every layer (identity: 1 and 0)."""
        scales, shifts = self.modulator(vector).chunk(2)
        return list((1 + scales).split(self.widths)), list(shifts.split(self.widths))

    def enlarge(self, x: Tensor, vector: Tensor) -> Tensor:
        """Run the modulated backbone, the modulation folded: N x 3 x H x W -> N x 3 x sH x sW."""
        return self.enlarge_by(x, *self.scales_and_shifts(vector))

    def enlarge_by(self, x: Tensor, scales: Sequence[Tensor], shifts: Sequence[Tensor]) -> Tensor:
        """Run the backbone with a scale and a shift for every channel of every layer, the tail last."""
        net = self.backbone
        skip = x.repeat_interleave(net.scale**2, dim=1)
        for layer, activation, scale, shift in zip((*net.body, net.tail), (*net.activations, None), scales, shifts):
            x = F.conv2d(x, layer.weight * scale[:, None, None, None], layer.bias * scale + shift, padding=1)
            x = x if activation is None else activation(x)
        return F.pixel_shuffle(x + skip, net.scale)

    @torch.no_grad()
    def member(self, condition: Condition) -> EdgeSR:
        """Return the plain backbone for a condition, in eval mode."""
        return self.fold(*(torch.cat(parts) for parts in self.scales_and_shifts(self.vector(condition))))

    @torch.no_grad()
    def fold(self, scale: Tensor, shift: Tensor) -> EdgeSR:
        """Return the plain backbone with a scale and a shift for every channel of every layer, in eval mode.

        Args:
            scale, shift: one number a channel, layer by layer, the tail last.

        Raises:
            ValueError: another number of channels.
        """
        if len(scale) != sum(self.widths) or len(shift) != sum(self.widths):
            raise ValueError(f"expected {sum(self.widths)} scales and shifts, got {len(scale)} and {len(shift)}")
        plain = EdgeSR(self.backbone.scale, **self.backbone.hyper)
        plain.load_state_dict(self.backbone.state_dict())
        parts = (part.split(self.widths) for part in (scale, shift))
        for layer, by, plus in zip((*plain.body, plain.tail), *parts):
            layer.weight.mul_(by[:, None, None, None])
            layer.bias.mul_(by).add_(plus)
        return plain.to(scale.device).eval().requires_grad_(False)

    @torch.no_grad()
    def correction(self, condition: Condition) -> DARM:
        """Return the correction network for a condition, in eval mode."""
        darm = DARM(channels=self.family.channels)
        darm.load_state_dict(self.family.weights(self.vector(condition)))
        return darm.eval().requires_grad_(False)


def modulated_of(backbone: Backbone, regime: str) -> Modulated | None:
    """Return the networks that belong to a backbone; None for a backbone, or a regime of its scale, that has none."""
    path = modulated_path(backbone.scale, regime)
    networks = load_modulated(path) if path.is_file() else None
    return networks if networks is not None and networks.neutral_sha256 == backbone.sha256 else None


def modulated_by(scale: int, sha256: str) -> Modulated | None:
    """Return the shipped networks of a scale whose file has the given sha256, if there are any."""
    paths = [path for path in (modulated_path(scale, regime) for regime in REGIMES) if path.is_file()]
    return next((networks for networks in map(load_modulated, paths) if networks.sha256 == sha256), None)


def extend(family: DarmFamily, experts: int) -> DarmFamily:
    """Return a family of whole conditions and of more experts that computes what the given one, told covariances alone, computes."""
    first, last = family.gate[0], family.gate[2]
    start = DARM(channels=family.channels)
    start.load_state_dict(dict(family.named_weights(family.common)))
    wide = DarmFamily(start, experts, len(first.bias), SIZE)
    with torch.no_grad():
        wide.deltas[: family.experts] = family.deltas
        wide.gate[0].weight.zero_()
        wide.gate[0].weight[:, : first.in_features] = first.weight
        wide.gate[0].bias.copy_(first.bias)
        wide.gate[2].weight.zero_()
        wide.gate[2].bias.zero_()
        wide.gate[2].weight[: family.experts] = last.weight
        wide.gate[2].bias[: family.experts] = last.bias
    return wide


def save_modulated(model: Modulated, path: str | Path, facts: dict, dtype: torch.dtype = torch.float16) -> str:
    """Write the networks and return the file's sha256."""
    arrays = {name: tensor.detach().to("cpu", dtype).numpy() for name, tensor in model.state_dict().items()}
    facts = {
        **facts,
        "scale": model.backbone.scale,
        "hyper": model.backbone.hyper,
        "channels": model.family.channels,
        "experts": model.family.experts,
    }
    return write_container(path, "modulated", VERSION, facts, arrays)


@functools.lru_cache(maxsize=4)
def load_modulated(path: Path) -> Modulated:
    """Load networks, in eval mode, without gradients; shared, so not to be changed.

    Raises:
        DarsrError: a damaged file.
    """
    facts, arrays, sha256 = read_container(path, "modulated", VERSION, "install the package again")
    (hidden,) = {len(arrays[name]) for name in ("family.gate.0.bias", "family.shares.0.bias") if name in arrays}
    family = DarmFamily(DARM(channels=facts["channels"]), facts.get("experts", facts.get("sets")), hidden, SIZE)
    model = Modulated(family, EdgeSR(facts["scale"], **facts["hyper"]), len(arrays["modulator.0.bias"]))
    model.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    model.sha256, model.neutral_sha256 = sha256, facts.get("neutral_sha256", "")
    return model.eval().requires_grad_(False)
