"""Reduction in NumPy: what PyTorch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from darsr_deploy.degradation import kernels, reduction
from darsr_train.degradation.reduction import reduce


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("side", [8, 13, 14, 40])
def test_it_is_what_pytorch_computes(scale, side):
    x = np.random.default_rng(side).random((2, 3, 64, 72), np.float32)
    kernel = kernels.normalised(np.random.default_rng(scale).random((side, side)))
    expected = reduce(torch.from_numpy(x), torch.from_numpy(kernel).float(), scale).numpy()
    np.testing.assert_allclose(reduction.reduce(x, kernel, scale), expected, atol=3e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_bicubic_kernel_is_the_one_of_a_resize(scale):
    table = reduction.bicubic_table(scale)
    assert table.shape == (4 * scale, 4 * scale) and table.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(table, table.T)
