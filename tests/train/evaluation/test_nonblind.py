"""The filter from the true kernel: the least squares solution, and none where there is nothing to undo."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from darsr_train.degradation.reduction import bicubic_table, reduce
from darsr_train.evaluation.nonblind import Filter, fit_filter
from darsr_train.networks.darm import symmetric_basis
from darsr_train.pipeline import GlobalCorrection


def kernel(scale: int, lopsided: bool = False) -> torch.Tensor:
    axis = torch.arange(6.0 * scale) - (6 * scale - 1) / 2 - (0.5 if lopsided else 0)
    row = torch.exp(-(axis**2) / (2 * (0.8 * scale) ** 2))
    return torch.outer(row, row) / row.sum() ** 2


@pytest.mark.parametrize("scale", [2, 4])
def test_no_other_filter_is_closer(scale):
    torch.manual_seed(0)
    y = F.avg_pool2d(torch.rand(1, 3, 96, 104), 3, 1, 1)
    blurred, target = reduce(y, kernel(scale, True), scale), reduce(y, bicubic_table(scale), scale)

    def loss(taps: torch.Tensor) -> float:
        return (Filter(taps)(blurred) - target).square().mean().item()

    taps = fit_filter(y, kernel(scale, True), scale, ridge=0.0).taps
    best = loss(taps)
    for _ in range(50):
        assert loss(taps + 1e-3 * torch.randn(5, 5)) >= best
    assert best < 0.3 * (blurred - target).square().mean()


def test_for_a_symmetric_kernel_it_is_the_symmetric_filter():
    """As good as the 13 taps of an adapter on an image that is its own mirror image in both directions."""
    torch.manual_seed(1)
    y = torch.rand(1, 3, 32, 32)
    y = torch.cat([y, y.flip(2)], 2)
    y = torch.cat([y, y.flip(3)], 3)
    blurred, target = reduce(y, kernel(2), 2), reduce(y, bicubic_table(2), 2)
    responses = torch.stack([Filter(basis)(blurred).flatten() for basis in symmetric_basis()], 1)
    free = fit_filter(y, kernel(2), 2, 1e-9)
    bound = GlobalCorrection(torch.linalg.lstsq(responses.double(), target.flatten().double()).solution.float())
    torch.testing.assert_close(free(y), bound(y), rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_where_nothing_is_to_be_undone_nothing_is_done(scale):
    y = torch.rand(1, 3, 48, 50)
    identity = fit_filter(y, bicubic_table(scale), scale)
    torch.testing.assert_close(identity(y), y, rtol=0, atol=1e-4)
    black = fit_filter(torch.zeros(1, 3, 24, 24), kernel(scale), scale)
    assert torch.isfinite(black.taps).all()
    assert fit_filter(torch.rand(1, 3, 3 * scale, 3 * scale + 1), kernel(scale), scale)(y).shape == y.shape
