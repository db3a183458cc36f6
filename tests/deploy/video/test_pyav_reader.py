"""Frames come upright and progressive, and the one that stands for a clip is not its title card."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from darsr_deploy.video.open_video import open_reader, sample_frames
from darsr_deploy.video.scenes import choose_frame
from tests.support.clips import av, pictures, read, run, write_clip

ONE = 1 << 16
UPRIGHT = {  # a, b, c, d of the display matrix, and what a player shows
    "as stored": ((1, 0, 0, 1), lambda p: p),
    "mirrored left to right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "mirrored top to bottom": ((1, 0, 0, -1), lambda p: p[::-1]),
    "turned by 180": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "turned clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "turned counterclockwise": ((0, -1, 1, 0), np.rot90),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed along the other diagonal": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("name", UPRIGHT)
def test_every_display_matrix(name, suffix, tmp_path):
    (a, b, c, d), show = UPRIGHT[name]
    frames = pictures(3)
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    clip = write_clip(tmp_path / f"clip{suffix}", frames, pixel_format="yuv444p", matrix=matrix)
    for ours, stored in zip(read(clip), frames):
        assert ours.pixels.shape == show(stored).shape
        assert np.abs(ours.pixels.astype(int) - show(stored)).mean() < 3
    run(clip)
    with av.open(str(tmp_path / f"clip_x2{suffix}")) as container:
        frame = next(container.decode(video=0))
        assert not any(data.type.name == "DISPLAYMATRIX" for data in frame.side_data), "turned twice"
    assert np.abs(read(tmp_path / f"clip_x2{suffix}")[0].pixels[::2, ::2].astype(int) - show(frames[0])).mean() < 8


# ---- interlaced


def interlaced(path, codec, order):
    """Write a bar that moves by 3 pixels a field, 25 frames a second."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=160, height=96, format="yuv420p", time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    with av.open(str(path), "w") as container:
        params = {"crf": "8", "x264-params": f"{order}=1"} if codec == "libx264" else {"qmax": "3"}
        stream = container.add_stream(codec, rate=25, options=params)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct.value
        for index in range(20):
            planes = np.full((3, 96, 160), 128, np.uint8)
            for field in (0, 1):
                row, left = (field if order == "tff" else 1 - field), 6 + 6 * index + 3 * field
                planes[0, row::2], planes[0, row::2, left : left + 24] = 40, 220
            frame = av.VideoFrame.from_ndarray(planes, format="yuv444p").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path


def combing(pixels):
    """Return how far rows differ from both neighbours alike, on average."""
    luma = pixels.astype(float).mean(2)
    return np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean()


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("codec, suffix", [("libx264", ".mp4"), ("libx264", ".ts"), ("mpeg2video", ".mkv")])
def test_fields_become_frames(codec, suffix, order, tmp_path):
    clip = interlaced(tmp_path / f"clip{suffix}", codec, order)
    with av.open(str(clip)) as container:
        stored = list(container.decode(video=0))
        assert stored[5].interlaced_frame and combing(stored[5].to_ndarray(format="rgb24")) > 3
    row = run(clip)
    assert [line for line in row["said"] if "is interlaced; it is deinterlaced" in line] == row["said"]
    frames = read(clip)
    assert len(frames) == len(stored) == row["frames"]
    assert max(combing(frame.pixels) for frame in frames) < 1
    times = [frame.pts * frame.time_base for frame in read(tmp_path / f"clip_x2{suffix}")]
    assert all(abs(after - before - Fraction(1, 25)) < Fraction(1, 500) for before, after in zip(times, times[1:]))
    with av.open(str(tmp_path / f"clip_x2{suffix}")) as container:
        assert container.streams.video[0].average_rate == 25
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


# ---- the frame that stands for a clip


def scene(count, seed=0):
    """Return texture that moves, under a logo that does not."""
    random = np.random.default_rng(seed)
    picture = random.integers(60, 200, (18, 60, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    frames = [picture[:, 2 * i : 2 * i + 96].copy() for i in range(count)]
    for frame in frames:
        frame[4:12, 4:24:2] = 255
    return frames


def card():
    """Return sharp white bars, in place of letters, on black."""
    picture = np.zeros((72, 96, 3), np.uint8)
    picture[28:44, 10:86:3] = 255
    return picture


@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_a_title_card_does_not_decide(suffix, tmp_path):
    frames = [card()] * 24 + scene(60)
    clip = write_clip(tmp_path / "clip.mp4", frames, "libx264")
    if suffix == ".y4m":
        clip = run(clip, tmp_path / "clip.y4m") and tmp_path / "clip.y4m"
    found = sample_frames(clip)
    assert len(found) == 8
    shown = choose_frame(found)
    assert shown.mean() > 80 > found[0].mean(), "the card is nearly black"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_long_clips_are_sought_through(suffix, tmp_path):
    frames = [card()] * 24 + [np.full((72, 96, 3), 40 + i // 4, np.uint8) for i in range(600)]
    clip = write_clip(tmp_path / f"clip{suffix}", frames, "libx264", gop_size=24)
    found = sample_frames(clip)
    assert len(found) == 8
    levels = [pixels.mean() for pixels in found[1:]]
    assert levels == sorted(levels) and levels[-1] - levels[0] > 80


def test_without_pyav_frames_are_sampled_too(tmp_path, monkeypatch):
    from darsr_deploy.video import open_video

    clip = write_clip(tmp_path / "clip.mp4", [card()] * 24 + scene(60), "libx264")
    monkeypatch.setattr(open_video, "has_pyav", lambda: False)
    assert len(sample_frames(clip)) == 8 and choose_frame(sample_frames(clip)).mean() > 80


def test_one_frame_is_enough(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", pictures(1))
    assert len(sample_frames(clip)) == 1
    with open_reader(clip) as reader:
        assert reader.lost is None


def test_noise_that_is_an_exception_does_not_decide():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (72, 96, 3), np.uint8)
    assert choose_frame([card(), *scene(4), noise, card()]) is not noise
