"""What stands for a clip, and what part of its frames."""

from __future__ import annotations

import cv2
import numpy as np

from darsr_deploy.video.scenes import moving_part


def moving_frames(height: int = 160, width: int = 240) -> list[np.ndarray]:
    """A camera that moves over smooth texture: uint8, H x W x 3."""
    wide = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (height, 2 * width)).astype(np.float32), (0, 0), 2)
    wide = np.clip(128 + 60 * wide / wide.std(), 0, 255).astype(np.uint8)
    return [np.repeat(wide[:, 20 * i : 20 * i + width, None], 3, 2) for i in range(8)]


def test_what_stands_still_over_a_moving_scene_is_left_out():
    frames = moving_frames()
    assert moving_part(frames) == (slice(0, 160), slice(0, 240))
    for frame in frames:
        cv2.putText(frame, "nobody said a word", (20, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    rows, columns = moving_part(frames)
    assert rows.start == 0 and 112 <= rows.stop <= 136 and columns == slice(0, 240)
    deep = [frame.astype(np.uint16) * 257 for frame in frames]
    assert moving_part(deep) == (rows, columns), "16 bits are the same"


def test_a_camera_that_does_not_move_leaves_nothing_out():
    assert moving_part([moving_frames()[0]] * 8) == (slice(0, 160), slice(0, 240))
    assert moving_part(moving_frames()[:2]) == (slice(0, 160), slice(0, 240)), "too few to tell"


def test_too_little_is_never_left():
    frames = moving_frames()
    for frame in frames:
        for y in range(20, 160, 30):
            cv2.putText(frame, "all over the whole picture", (2, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    assert moving_part(frames) == (slice(0, 160), slice(0, 240))
