"""DSEM: score a patch from bicubic (0) to the unknown degradation (1) (DARSR, section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


class DSEM(nn.Module):
    """Degradation score of N x 3 x H x W crops in [0, 1]: N values in (0, 1), by 3,535,233 parameters."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            layers += [_Residual(width), _Residual(width)]
            if i + 1 < len(widths):
                layers.append(nn.Conv2d(width, widths[i + 1], 3, stride=2, padding=1))
        self.body = nn.Sequential(*layers)
        self.score = nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.ReLU(), nn.Linear(widths[-1], 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.body(x).mean((2, 3)))[:, 0]
