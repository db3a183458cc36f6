"""Which parts of a picture say what happened to it: not its borders and bars, of a large one those with most detail."""

from __future__ import annotations

import cv2
import numpy as np

from ..images.detail import find_largest_sum
from .quantiles import quantiles

_WHOLE = 576  # longest side in pixels up to which all of a picture is looked at
_SIDE, _BLOCK = 384, 32  # of the windows of a larger one, and the grid that they begin on
_WINDOWS = 3  # an odd number: their median is taken
_LINES = 16  # rows or columns that are looked at together
_EVEN = 10  # grey levels that a row of a border or bar spans at most, JPEG's ringing included
_LEAST = 32  # pixels of a side that must be left
_FREQUENT = 0.001  # share of the pixels that a colour has which was drawn with
_MOSTLY_DRAWN = 0.6
_ABRUPT = 30  # grey levels: mean step at the rim of what was drawn
_LETTER, _STROKE = 15, 5  # pixels: about the width of a letter, and the gaps inside it that are closed
_RIM = 2  # pixels next to a border that its edge has rung into


def analysis_windows(pixels: np.ndarray) -> list[np.ndarray]:
    """Return the parts of a uint8 picture (H x W or H x W x 3) that are looked at: one, or an odd number of them."""
    pixels = trim_borders(pixels)
    if max(pixels.shape[:2]) <= _WHOLE:
        return [pixels]
    plane = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 1])
    corner = plane[:-1, :-1]
    detail = cv2.max(cv2.absdiff(corner, plane[1:, :-1]), cv2.absdiff(corner, plane[:-1, 1:]))
    rows, columns = (max(1, length // _BLOCK) for length in detail.shape)
    detail = detail[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32)
    blocks: np.ndarray = cv2.resize(detail, (columns, rows), interpolation=cv2.INTER_AREA)
    windows = []
    for _ in range(_WINDOWS):
        # The steepest blocks are captions and frames as often as scenes: what they exceed does not count.
        capped = np.minimum(blocks, 2 * float(quantiles(blocks, (0.5,))[0]) + 1).round(2)
        found = find_largest_sum(capped, _SIDE // _BLOCK, _SIDE // _BLOCK)
        place = found or tuple(slice(max(0, n - _SIDE // _BLOCK) // 2, None) for n in blocks.shape)
        top, left = (_BLOCK * part.start for part in place)
        windows.append(pixels[top : top + _SIDE, left : left + _SIDE])
        blocks[place] *= 0.25  # the next one lies elsewhere if there is as much to see
    return windows


def trim_borders(pixels: np.ndarray) -> np.ndarray:
    """Cut off borders, bars and frames of one colour; all of the picture where next to nothing else would be left."""
    planes = pixels[:, :, None] if pixels.ndim == 2 else pixels[:, :, :3]
    (top, bottom), (left, right) = (_inner(lines) for lines in (planes, planes.swapaxes(0, 1)))
    if bottom - top < _LEAST or right - left < _LEAST:
        return pixels
    return pixels[top:bottom, left:right]


def split_in_thirds(pixels: np.ndarray) -> list[list[np.ndarray]]:
    """Return a picture's three rows and three columns of equal parts, as far as a side is long enough."""
    sides = [(axis, length) for axis, length in enumerate(pixels.shape[:2]) if length // 3 >= _LEAST]
    return [
        [np.ascontiguousarray(np.take(pixels, range(i * n // 3, (i + 1) * n // 3), axis)) for i in range(3)]
        for axis, n in sides
    ]


def smooth_over_drawings(pixels: np.ndarray) -> np.ndarray:
    """Fill in what was drawn over a picture (logos, captions, cut-outs), so that its sharp rims say nothing of a lens.

    Drawn are clusters of pixels of the very same colour, of colours that are frequent: photographs have hardly any, and where
    they do, as in a burnt-out sky, nothing is lost with them. A picture of which much is drawn is returned as it is.
    """
    rgb = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels[:, :, :3]
    codes = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    _, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    frequent = counts[places].reshape(codes.shape) >= max(24, _FREQUENT * codes.size)
    same = np.zeros(codes.shape, np.uint8)
    padded = np.pad(codes, 1, mode="edge")
    height, width = codes.shape
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2)):
        same += padded[dy : dy + height, dx : dx + width] == codes
    clusters = _abrupt((frequent & (same >= 2)).astype(np.uint8), rgb)
    near = cv2.dilate(clusters, _square(_LETTER))  # thin strokes of the same ink make no clusters of their own
    strokes = cv2.morphologyEx((frequent & (near > 0)).astype(np.uint8), cv2.MORPH_CLOSE, _square(_STROKE))
    drawn = cv2.dilate(strokes, _square(2 * _RIM + 1))
    share = drawn.mean()
    if not 0 < share < _MOSTLY_DRAWN:
        return pixels
    rgb = np.ascontiguousarray(rgb)
    filled = cv2.inpaint(rgb, drawn, 3, cv2.INPAINT_TELEA)
    return filled[:, :, 0] if pixels.ndim == 2 else filled


def _abrupt(clusters: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Keep the clusters that end within a pixel; those of a photograph, such as a black coat, fade out."""
    count, labels = cv2.connectedComponents(clusters, connectivity=8)
    rims = (clusters > 0) & (cv2.erode(clusters, _square(3)) == 0)
    steps = (cv2.dilate(rgb, _square(3)).astype(np.int16) - cv2.erode(rgb, _square(3))).max(2)
    total, pixels = (np.bincount(labels[rims], w, count) for w in (steps[rims].astype(np.float64), None))
    keep = total > _ABRUPT * np.maximum(pixels, 1)
    keep[0] = False
    return keep[labels].astype(np.uint8)


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


def _inner(lines: np.ndarray) -> tuple[int, int]:
    """Return the first line and the one behind the last that no even run at an end covers, less a rim where there is one."""
    before = _count_even(lines)
    if before == len(lines):
        return 0, 0
    behind = _count_even(lines[::-1])
    return before + (_RIM if before else 0), len(lines) - behind - (_RIM if behind else 0)


def _count_even(lines: np.ndarray) -> int:
    """Count the lines (N x length x C) of one colour that come before the first other one."""
    for start in range(0, len(lines), _LINES):
        low, high = quantiles(lines[start : start + _LINES], (0.02, 0.98), axis=1)
        busy = np.flatnonzero((high - low).max(-1) > _EVEN)
        if len(busy):
            return start + int(busy[0])
    return len(lines)
