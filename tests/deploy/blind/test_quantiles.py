"""Quantiles: those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from darsr_deploy.blind.quantiles import quantiles

SHARES = (0.02, 0.5, 0.9, 0.98, 0.999)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_they_are_those_of_numpy(dtype):
    values = (np.random.default_rng(0).random((7, 31, 3)) * 255).astype(dtype)
    np.testing.assert_allclose(quantiles(values, SHARES), np.quantile(values, SHARES), rtol=1e-6)
    np.testing.assert_allclose(quantiles(values, SHARES, axis=1), np.quantile(values, SHARES, axis=1), rtol=1e-6)
    assert np.array_equal(quantiles(values[:1, :1, :1], (0.3,)), values[0, 0, :1])
