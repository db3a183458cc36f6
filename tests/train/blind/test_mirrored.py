"""A kernel and its mirror image: the right one is found, and the reduction is undone exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.images.metrics import luma
from darsr_train.blind import mirrored
from darsr_train.degradation.odd_kernels import random_lobes, random_path
from darsr_train.degradation.reduction import reduce


def photograph(name: str) -> np.ndarray:
    return luma(getattr(data, name)()[:240, 40:280].astype(np.float64)) / 255


def reduced(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return reduce(torch.from_numpy(plane)[None, None], torch.from_numpy(kernel.copy()), 2)[0, 0].numpy()


def lopsided(draw) -> np.ndarray:
    """The first kernel drawn that differs much from its mirror image."""
    for seed in range(50):
        kernel = draw(np.random.default_rng(seed), 14)
        if np.linalg.norm(kernel - kernel[::-1, ::-1]) > 0.7 * np.linalg.norm(kernel):
            return kernel
    raise AssertionError("none is lopsided")


@pytest.mark.parametrize("draw", [random_lobes, random_path])
@pytest.mark.parametrize("name", ["chelsea", "astronaut"])
def test_finds_the_kernel_whichever_is_given(name, draw):
    kernel = lopsided(draw)
    plane = np.round(reduced(photograph(name), kernel) * 255) / 255
    for given in (kernel, kernel[::-1, ::-1]):
        assert np.array_equal(mirrored.choose_orientation(plane, given), kernel)


def test_a_symmetric_kernel_stays_and_a_nearly_symmetric_one_becomes_it():
    kernel = np.outer(*[np.hanning(16)[1:-1]] * 2)
    plane = reduced(photograph("chelsea"), kernel / kernel.sum())
    assert np.allclose(mirrored.choose_orientation(plane, kernel), kernel)
    uneven = kernel.copy()
    uneven[3, 3] *= 1.05
    found = mirrored.choose_orientation(plane, uneven)
    assert np.array_equal(found, found[::-1, ::-1])


def test_undoing_the_reduction_is_the_least_squares_solution(monkeypatch):
    """Against the normal equations, written out as a matrix on a small periodic image."""
    random, noise = np.random.default_rng(0), 0.05
    monkeypatch.setattr(mirrored, "_NOISE", noise)
    side, kernel = 12, random.random((4, 4))
    y, z = random.random((side // 2, side // 2)), random.random((side, side))
    matrix = np.zeros((side**2 // 4, side**2))
    for i in range(side // 2):
        for j in range(side // 2):
            for a in range(4):
                for b in range(4):
                    matrix[i * side // 2 + j, (2 * i + a - 1) % side * side + (2 * j + b - 1) % side] += kernel[a, b]
    right = matrix.T @ y.ravel() + noise * z.ravel()
    expected = np.linalg.solve(matrix.T @ matrix + noise * np.eye(side**2), right).reshape(side, side)
    assert np.allclose(mirrored._undo_reduction(y, z, kernel), expected)
