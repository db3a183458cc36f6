"""Find the hard cuts of a video, the frames of a clip that stand for it, and the part of them that nothing is drawn over."""

from __future__ import annotations

import cv2
import numpy as np

_THUMBNAIL = (64, 36)
_CUT = 0.1  # mean absolute difference of two frames, of the full range: PySceneDetect's content detector uses 27/255
_ABRUPT = 3.0  # times what the frames before differed by: fast motion is no cut
_TILES = 8  # along each side, whose detail is compared
_MEMORY = 0.8  # of the running mean of differences
_BLOCK = 8  # pixels: the grid of the part without still edges
_CONTRAST = 24  # grey levels within 3 x 3 pixels that make an edge
_STILL = 0.35  # times an edge's contrast that it may change by and still count as standing still
_MOST_STILL = 0.4  # share of still edges above which the camera does not move
_LEAST_SHARE, _LEAST_SIDE = 1 / 3, 64  # of the part, in the frame and in pixels


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


def moving_part(frames: list[np.ndarray]) -> tuple[slice, slice]:
    """Return the largest part of the frames of a clip in which no edge stands still while the scene moves.

    A station's logo or a subtitle stands still where the scene moves, and no lens has formed it.

    Args:
        frames: uint8 or uint16, H x W or H x W x 3, of one size, from all over the clip.

    Returns:
        Rows and columns; all of them where the scene stands still too, or where too little would be left.
    """
    height, width = frames[0].shape[:2]
    whole = slice(0, height), slice(0, width)
    if len(frames) < 3:
        return whole
    gray = np.stack([_gray(frame) for frame in frames])
    middle = np.median(gray, axis=0).astype(np.float32)
    contrast = cv2.dilate(middle, np.ones((3, 3))) - cv2.erode(middle, np.ones((3, 3)))
    spread = np.percentile(gray, 90, axis=0) - np.percentile(gray, 10, axis=0)
    still, moving = (contrast > _CONTRAST) & (spread < _STILL * contrast), spread > _CONTRAST
    if still.sum() > _MOST_STILL * (still.sum() + moving.sum()):
        return whole
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    padded = np.pad(still, ((0, rows * _BLOCK - height), (0, columns * _BLOCK - width)))
    drawn = padded.reshape(rows, _BLOCK, columns, _BLOCK).sum((1, 3)) > 1  # one pixel may stand still by chance
    top, bottom, left, right = (side * _BLOCK for side in _largest_rectangle(~drawn))
    part = slice(top, min(bottom, height)), slice(left, min(right, width))
    sides = part[0].stop - top, part[1].stop - left
    return part if min(sides) >= _LEAST_SIDE and np.prod(sides) >= _LEAST_SHARE * height * width else whole


def _gray(pixels: np.ndarray) -> np.ndarray:
    """Return a frame as float32 in grey levels of 8 bits."""
    gray = pixels if pixels.ndim == 2 else pixels.mean(2)
    return np.asarray(gray * (255 / np.iinfo(pixels.dtype).max), np.float32)


def _largest_rectangle(free: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the largest rectangle of true cells."""
    best, heights = (0, 0, 0, 0), np.zeros(free.shape[1], int)
    for row, cells in enumerate(free):
        heights = np.where(cells, heights + 1, 0)
        for tall in np.unique(heights[heights > 0]):  # the widest run of columns that are at least so tall
            runs = np.flatnonzero(np.diff(np.concatenate([[0], heights >= tall, [0]]))).reshape(-1, 2)
            left, right = runs[np.argmax(runs[:, 1] - runs[:, 0])]
            if tall * (right - left) > (best[1] - best[0]) * (best[3] - best[2]):
                best = (row + 1 - int(tall), row + 1, int(left), int(right))
    return best
