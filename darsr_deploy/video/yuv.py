"""Convert 8-bit luma and chroma to RGB and back (ITU-R BT.601, BT.709, BT.2020), with exact chroma siting."""

from __future__ import annotations

import cv2
import numpy as np

_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
# Subsampling in x and y, and where the first chroma sample lies, in luma pixels.
LAYOUTS = {
    "420jpeg": ((2, 2), (0.5, 0.5)),
    "420mpeg2": ((2, 2), (0.0, 0.5)),
    "420paldv": ((2, 2), (0.0, 0.0)),
    "422": ((2, 1), (0.0, 0.0)),
    "444": ((1, 1), (0.0, 0.0)),
}


def to_rgb(planes: list[np.ndarray], layout: str, matrix: str, full: bool) -> np.ndarray:
    """Convert uint8 planes Y, U, V to uint8 H x W x 3."""
    kr, kb = _KR_KB[matrix]
    y, u, v = (plane.astype(np.float32) for plane in planes)
    u, v = (_spread(plane, y.shape, *LAYOUTS[layout]) - 128 for plane in (u, v))
    luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    y = (y - (0 if full else 16)) * np.float32(luma)
    red = y + np.float32(2 * (1 - kr) * chroma) * v
    blue = y + np.float32(2 * (1 - kb) * chroma) * u
    green = (y - np.float32(kr) * red - np.float32(kb) * blue) / np.float32(1 - kr - kb)
    return _rounded(np.stack([red, green, blue], axis=2))


def from_rgb(pixels: np.ndarray, layout: str, matrix: str, full: bool) -> list[np.ndarray]:
    """Convert uint8 H x W x 3 to planes Y, U, V: the inverse of :func:`to_rgb`."""
    kr, kb = _KR_KB[matrix]
    red, green, blue = (pixels[:, :, i].astype(np.float32) for i in range(3))
    y = np.float32(kr) * red + np.float32(1 - kr - kb) * green + np.float32(kb) * blue
    luma, chroma = (1.0, 1.0) if full else (219 / 255, 224 / 255)
    u = (blue - y) * np.float32(chroma / (2 * (1 - kb)))
    v = (red - y) * np.float32(chroma / (2 * (1 - kr)))
    y = y * np.float32(luma) + (0 if full else 16)
    return [_rounded(plane) for plane in (y, *(_gather(c, *LAYOUTS[layout]) + 128 for c in (u, v)))]


def change_matrix(used: str, right: str) -> np.ndarray | None:
    """Return the 3 x 3 matrix from RGB that ``used`` made of luma and chroma to the RGB that ``right`` makes of them.

    None where both are the same.
    """
    if used == right:
        return None

    def to_yuv(name: str) -> np.ndarray:
        kr, kb = _KR_KB[name]
        y = np.array([kr, 1 - kr - kb, kb])
        return np.stack([y, (np.array([0, 0, 1]) - y) / (1 - kb), (np.array([1, 0, 0]) - y) / (1 - kr)])

    return np.linalg.inv(to_yuv(right)) @ to_yuv(used)


def luma_to_gray(y: np.ndarray, full: bool) -> np.ndarray:
    """Convert uint8 luma alone to uint8 gray of full range."""
    return y if full else _rounded((y.astype(np.float32) - 16) * np.float32(255 / 219))


def gray_to_luma(gray: np.ndarray, full: bool) -> np.ndarray:
    """Convert uint8 gray of full range to uint8 luma."""
    return gray if full else _rounded(gray.astype(np.float32) * np.float32(219 / 255) + 16)


def chroma_shape(height: int, width: int, layout: str) -> tuple[int, int]:
    """Return the rows and columns of a chroma plane; odd sides are rounded up."""
    (across, down), _ = LAYOUTS[layout]
    return -(-height // down), -(-width // across)


def _spread(plane: np.ndarray, shape: tuple[int, int], step: tuple[int, int], first: tuple[float, float]) -> np.ndarray:
    """Interpolate chroma linearly at every luma pixel."""
    if step == (1, 1):
        return plane
    to_source = np.array([[1 / step[0], 0, -first[0] / step[0]], [0, 1 / step[1], -first[1] / step[1]]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, to_source, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _gather(plane: np.ndarray, step: tuple[int, int], first: tuple[float, float]) -> np.ndarray:
    """Downsample chroma to its sites: the mean of two neighbours between them, or [1, 2, 1] / 4 around one."""
    horizontal, vertical = (
        np.ones(1, np.float32) if s == 1 else np.array([0, 0.5, 0.5] if f == 0.5 else [0.25, 0.5, 0.25], np.float32)
        for s, f in zip(step, first)
    )
    smooth = cv2.sepFilter2D(plane, -1, horizontal, vertical, borderType=cv2.BORDER_REPLICATE)
    return smooth[:: step[1], :: step[0]]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + np.float32(0.5)), 0, 255).astype(np.uint8)
