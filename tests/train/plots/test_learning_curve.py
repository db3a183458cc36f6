"""The learning curve that stands beside trained weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from darsr_train.plots.learning_curve import WIDTH, _ticks, draw_curve

BLUE, RED = (20, 62, 126), (140, 26, 38)


def log_of(losses: list[float], psnr: list[float] | None = None) -> list[dict]:
    return [
        {"step": 100 * (i + 1), "loss": loss} | ({"psnr_y": psnr[i]} if psnr else {}) for i, loss in enumerate(losses)
    ]


def heights(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean row of a curve's pixels in the first and the last quarter of the columns that it crosses."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    left, right = np.percentile(columns, [25, 75])
    return np.array([rows[columns < left].mean(), rows[columns > right].mean()])


def test_a_falling_loss_falls_and_a_rising_psnr_rises():
    picture = draw_curve(log_of(list(np.geomspace(1, 0.1, 200)), list(np.linspace(30, 32, 200))), "mine")
    loss, psnr = heights(picture, BLUE), heights(picture, RED)
    assert picture.shape[1] == WIDTH and picture.dtype == np.uint8
    assert loss[0] < loss[1] - 50 and psnr[0] > psnr[1] + 50  # rows count from the top
    assert loss.max() < psnr.min(), "loss above, PSNR below"


def test_without_psnr_there_is_one_panel():
    losses = [0.3, 0.2, 0.1]
    one, two = draw_curve(log_of(losses), "a"), draw_curve(log_of(losses, [30, 31, 32]), "a")
    assert one.shape[0] < two.shape[0] and not (one == RED).all(-1).any()


@pytest.mark.parametrize("losses", [[], [0.1], [0.1, 0.1], [0.2, math.nan, 0.1]], ids=["none", "one", "flat", "nan"])
def test_short_and_flat_logs_and_values_that_are_none_are_drawn(losses):
    assert draw_curve(log_of(losses), "a").shape[1] == WIDTH


@pytest.mark.parametrize("low, high", [(0, 1), (31.2, 31.5), (-0.31, -0.29), (0, 12_000), (1e-4, 3e-4)])
def test_ticks_are_round_and_between_the_bounds(low, high):
    ticks = _ticks(low, high)
    assert 3 <= len(ticks) <= 10 and low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0]) and float(f"{steps[0]:.0e}") == pytest.approx(steps[0])
