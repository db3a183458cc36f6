"""Scene changes of a video: hard cuts, after which another correction may be right."""

from __future__ import annotations

import cv2
import numpy as np

_THUMBNAIL = (64, 36)
_CUT = 0.1  # mean absolute difference of two frames, of the full range: PySceneDetect's content detector uses 27/255
_ABRUPT = 3.0  # times what the frames before differed by: fast motion is no cut
_MEMORY = 0.8  # of the running mean of differences


class SceneCuts:
    """Tells, frame by frame, where a new scene begins."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0

    def __call__(self, pixels: np.ndarray) -> bool:
        """Whether this frame (uint8 or uint16, H x W or H x W x 3) is the first of another scene than the one before."""
        small = cv2.resize(pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        small /= np.iinfo(pixels.dtype).max
        last, self._last = self._last, small
        if last is None or last.shape != small.shape:
            return False
        difference = float(np.abs(small - last).mean())
        cut = difference > max(_CUT, _ABRUPT * self._usual)
        self._usual = 0.0 if cut else _MEMORY * self._usual + (1 - _MEMORY) * difference
        return cut


def most_detailed(frames: list[np.ndarray]) -> np.ndarray:
    """The frame to adapt to: many a clip begins in black, or with a blurred frame of a transition.

    Detail is the spread of the luma's gradient, which black, flat and blurred frames lack.
    """

    def detail(pixels: np.ndarray) -> float:
        gray = pixels if pixels.ndim == 2 else pixels.mean(2)
        return float(cv2.Laplacian(gray.astype(np.float32), cv2.CV_32F).std())

    return max(frames, key=detail)
