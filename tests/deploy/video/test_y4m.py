"""YUV4MPEG2 read strictly and written exactly, the threads that carry frames, and the scenes they belong to."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darsr_deploy.errors import DarsrError
from darsr_deploy.video import yuv
from darsr_deploy.video.frames import STREAM, Frame, VideoInfo, is_video
from darsr_deploy.video.open_video import open_reader
from darsr_deploy.video.pipeline import pipelined
from darsr_deploy.video.scenes import SceneCuts, choose_frame
from darsr_deploy.video.y4m import Y4mReader, Y4mWriter

HEADER = b"YUV4MPEG2 W5 H4 F30000:1001 Ip A1:1 C444"


def refusal(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(DarsrError) as caught, Y4mReader(path) as reader:
        list(reader)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1 and "; " in line
    return line


# ---- colours


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("layout", yuv.LAYOUTS)
def test_a_flat_colour_there_and_back(layout, matrix, full):
    for colour in ((200, 40, 60), (0, 0, 0), (255, 255, 255), (30, 180, 50)):
        pixels = np.full((7, 9, 3), colour, np.uint8)
        back = yuv.to_rgb(yuv.from_rgb(pixels, layout, matrix, full), layout, matrix, full)
        assert np.abs(back.astype(int) - pixels).max() <= 2


def test_known_values():
    """100 % red and blue, and 75 % green: of the tables of BT.601 and BT.709, limited range."""
    for matrix, colour, expected in (
        ("bt601", (255, 0, 0), (81, 90, 240)),
        ("bt601", (0, 0, 255), (41, 240, 110)),
        ("bt709", (255, 0, 0), (63, 102, 240)),
        ("bt709", (0, 0, 255), (32, 240, 118)),
        ("bt601", (0, 191, 0), (112, 72, 58)),
        ("bt709", (0, 191, 0), (133, 63, 52)),
    ):
        planes = yuv.from_rgb(np.full((2, 2, 3), colour, np.uint8), "444", matrix, False)
        assert [int(p[0, 0]) for p in planes] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("layout", [name for name in yuv.LAYOUTS if name != "444"])
def test_chroma_lies_where_the_layout_says(layout):
    """A chroma ramp stays the same straight line through any subsampling: a wrong siting would shift it."""
    rows, columns = np.mgrid[:20, :24].astype(np.float32)
    for ramp in (columns, rows):
        pixels = np.stack([128 + 2 * ramp, 128 + 0 * ramp, 128 - 2 * ramp], axis=2).astype(np.uint8)
        back = yuv.to_rgb(yuv.from_rgb(pixels, layout, "bt601", True), layout, "bt601", True)
        assert np.abs(back.astype(int) - pixels)[3:-3, 3:-3].max() <= 2


# ---- the format


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["420", "422", "444", "gray", "420jpeg", "420mpeg2", "420paldv"]),
    st.booleans(),
)
@settings(max_examples=40)
def test_there_and_back(tmp_path_factory, size, layout, full):
    """Any size, odd ones too: the header says what was written, gray is exact."""
    path = tmp_path_factory.getbasetemp() / "any.y4m"
    info = VideoInfo(size[1], size[0], Fraction(30000, 1001), None, layout, 8, "bt601", full, Fraction(4, 3))
    shape = size if layout == "gray" else (*size, 3)
    frames = [np.full(shape, level, np.uint8) for level in (0, 90, 255)]
    with Y4mWriter(path, info) as writer:
        for index, pixels in enumerate(frames):
            writer.write(Frame(pixels, index, 1 / info.rate))
        writer.finish()
    with open_reader(path) as reader:
        result = list(reader)
        assert reader.info.rate == info.rate and reader.info.full_range == full
        assert reader.info.aspect == info.aspect and reader.info.layout.startswith(layout)
    for index, (ours, pixels) in enumerate(zip(result, frames)):
        assert ours.pts == index and ours.pixels.shape == shape
        assert np.abs(ours.pixels.astype(int) - pixels).max() <= (0 if full else 1)


def test_16_bits_are_rounded(tmp_path):
    info = VideoInfo(4, 4, Fraction(25), None, "gray", 16, full_range=True)
    with Y4mWriter(tmp_path / "a.y4m", info) as writer:
        writer.write(Frame(np.full((4, 4), 257 * 90 + 100, np.uint16), 0, Fraction(1, 25)))
        writer.finish()
    with open_reader(tmp_path / "a.y4m") as reader:
        (frame,) = reader
    assert (frame.pixels == 90).all()


@pytest.mark.parametrize(
    "header, why",
    [
        (b"RIFF1234AVI ", "not a YUV4MPEG2"),
        (HEADER.replace(b"W5 ", b""), "lacks a width"),
        (HEADER.replace(b"W5", b"Wx"), "lacks a width"),
        (HEADER.replace(b"1001", b"0"), "lacks a width, height or rate"),
        (HEADER.replace(b"W5", b"W0"), "names 0x4 pixels"),
        (HEADER.replace(b"W5 H4", b"W999999 H999999"), "names 999999x999999 pixels"),
        (HEADER.replace(b"Ip", b"It"), "interlaced"),
        (HEADER.replace(b"C444", b"C420p10"), "colours are 420p10"),
        (HEADER.replace(b"C444", b"C411"), "colours are 411"),
        (HEADER + b" Q7", "'Q7', which is not known"),
        (HEADER * 100, "cut off"),
    ],
)
def test_a_header_that_cannot_be_used(header, why, tmp_path):
    assert why in refusal(tmp_path / "a.y4m", header + b"\nFRAME\n" + bytes(60))


@pytest.mark.parametrize(
    "body, why",
    [
        (b"FRAME\n" + bytes(59), "ends within frame 1"),
        (b"FRAME\n" + bytes(60) + b"FRAME\n" + bytes(10), "ends within frame 2"),
        (b"FRAME\n" + bytes(60) + b"FRA", "cut off"),
        (b"FRAME\n" + bytes(60) + b"FRAMES\n" + bytes(60), "frame 2 does not begin with FRAME"),
    ],
)
def test_a_body_that_cannot_be_used(body, why, tmp_path):
    assert why in refusal(tmp_path / "a.y4m", HEADER + b"\n" + body)


def test_comments_and_parameters_of_frames_are_passed_over(tmp_path):
    (tmp_path / "a.y4m").write_bytes(HEADER + b" XYSCSS=444 XABC\nFRAME Ip XABC\n" + bytes([128] * 60))
    with open_reader(tmp_path / "a.y4m") as reader:
        assert len(list(reader)) == 1


@given(st.binary(max_size=200), st.sampled_from([b"", b"YUV4MPEG2 ", HEADER + b"\n", HEADER + b"\nFRAME\n"]))
def test_any_bytes_give_frames_or_one_line(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "bytes.y4m"
    path.write_bytes(magic + data)
    try:
        with Y4mReader(path) as reader:
            list(reader)
    except DarsrError as error:
        assert str(path) in str(error)


def test_what_is_a_video():
    assert is_video(STREAM) and is_video(Path("a/clip.MP4")) and is_video(Path("clip.y4m"))
    assert not is_video(Path("photo.png")) and not is_video(Path("mp4"))


# ---- the pipeline


def test_order_is_kept_and_memory_is_bounded():
    taken, written, ahead = 0, [], []

    def numbers():
        nonlocal taken
        for taken in range(100):  # noqa: UP028 - the loop's variable is what the test looks at
            yield taken

    def write(item: int) -> None:
        ahead.append(taken - item)
        time.sleep(0.001)
        written.append(item)

    pipelined(numbers(), lambda item: item * 1, write, depth=3)
    assert written == list(range(100))
    assert max(ahead) <= 2 * 3 + 3, "two queues, and one item in each hand"


def test_the_stages_overlap():
    """Reading, working and writing take 10 ms an item each: together they take the time of one, not of three."""

    def read():
        for index in range(20):
            time.sleep(0.01)
            yield index

    started = time.perf_counter()
    pipelined(read(), lambda item: time.sleep(0.01), lambda item: time.sleep(0.01))
    assert time.perf_counter() - started < 0.5, "one after the other they take 0.6 s"


@pytest.mark.parametrize("place", ["read", "work", "write"])
@pytest.mark.parametrize("error", [DarsrError("a", "b"), ZeroDivisionError(), KeyboardInterrupt()])
def test_an_error_anywhere_ends_all_and_is_raised(place, error):
    def fail(here: str, item: int) -> int:
        if here == place and item == 5:
            raise error
        return item

    threads, done = threading.active_count(), []
    with pytest.raises(type(error)):
        pipelined(
            (fail("read", i) for i in range(1000)),
            lambda item: fail("work", item),
            lambda item: done.append(fail("write", item)),
        )
    assert threading.active_count() == threads
    assert len(done) <= 5


def test_nothing_to_do():
    pipelined([], lambda item: item, lambda item: pytest.fail("nothing was read"))


# ---- scenes


def test_cuts_are_found_and_motion_is_none():
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 256, (6, 20, 3), np.uint8).repeat(24, 0).repeat(24, 1) for _ in range(3)]
    cuts, found = SceneCuts(), []
    for number, scene in enumerate(scenes):
        for step in range(20):  # a pan of two pixels a frame
            found += [(number, step)] if cuts(scene[:, 2 * step : 2 * step + 256]) else []
    assert found == [(1, 0), (2, 0)]


def test_a_slow_fade_is_no_cut():
    cuts = SceneCuts()
    assert not any(cuts(np.full((36, 64), level, np.uint8)) for level in range(0, 255, 5))


def test_black_and_blurred_frames_are_not_adapted_to():
    random = np.random.default_rng(0)
    sharp = random.integers(0, 256, (40, 40, 3), np.uint8)
    blurred = np.repeat(np.repeat(sharp[::8, ::8], 8, 0), 8, 1)
    assert choose_frame([np.zeros_like(sharp), blurred, sharp, blurred]) is sharp
