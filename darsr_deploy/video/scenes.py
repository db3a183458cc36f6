"""Find the hard cuts of a video, and the frame of a clip that stands for it."""

from __future__ import annotations

import cv2
import numpy as np

_THUMBNAIL = (64, 36)
_CUT = 0.1  # mean absolute difference of two frames, of the full range: PySceneDetect's content detector uses 27/255
_ABRUPT = 3.0  # times what the frames before differed by: fast motion is no cut
_TILES = 8  # along each side, whose detail is compared
_MEMORY = 0.8  # of the running mean of differences


class SceneCuts:
    """Find, frame by frame, where a new scene begins."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0

    def __call__(self, pixels: np.ndarray) -> bool:
        """Return whether a frame (uint8 or uint16, H x W or H x W x 3) begins another scene than the one before."""
        small = cv2.resize(pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        small /= np.iinfo(pixels.dtype).max
        last, self._last = self._last, small
        if last is None or last.shape != small.shape:
            return False
        difference = float(np.abs(small - last).mean())
        cut = difference > max(_CUT, _ABRUPT * self._usual)
        self._usual = 0.0 if cut else _MEMORY * self._usual + (1 - _MEMORY) * difference
        return cut


def choose_frame(frames: list[np.ndarray]) -> np.ndarray:
    """Return the frame that stands for a clip: the first of :func:`typical_frames`."""
    return typical_frames(frames, 1)[0]


def typical_frames(frames: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return up to ``count`` frames that stand for a clip: those with texture all over, the best one first.

    Black and blurred frames have little detail, a title card or a logo has it in few places: the detail of a frame is the
    median of its tiles'. The best of five or more frames may be an exception too, such as noise: it comes last.

    Args:
        frames: uint8 or uint16, H x W or H x W x 3, from all over the clip.

    Returns:
        Frames with at least half as much detail as the first.
    """
    ranked = sorted(((_detail(frame), index) for index, frame in enumerate(frames)), reverse=True)
    ranked = [*ranked[1:], ranked[0]] if len(ranked) > 4 else ranked
    return [frames[index] for detail, index in ranked[:count] if 2 * detail >= ranked[0][0]]


def _detail(pixels: np.ndarray) -> float:
    """Return the median, over the tiles of a picture, of the Laplacian's standard deviation."""
    gray = pixels if pixels.ndim == 2 else pixels.mean(2)
    edges = cv2.Laplacian(gray.astype(np.float32), cv2.CV_32F)
    tiles = [tile for rows in np.array_split(edges, _TILES) for tile in np.array_split(rows, _TILES, axis=1)]
    return float(np.median([tile.std() for tile in tiles if tile.size]))
