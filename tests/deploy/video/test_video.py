"""Videos: every frame as the image would be, with its time, its colours and the audio; nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import places
from darsr_deploy.video import open_video
from darsr_deploy.video.frames import VideoInfo
from darsr_deploy.video.open_video import open_reader, open_writer
from export.artefacts.subject import Source
from export.inference.video import VideoOptions, infer_video
from tests.support.clips import Bicubic, audio_packets, av, pictures, read, run, write_clip

ROOT = Path(__file__).parents[3]


# ---- the picture


@pytest.mark.parametrize("suffix, codec, pixel_format", [(".mkv", "ffv1", "bgr0"), (".avi", "ffv1", "bgr0")])
def test_every_frame_is_exactly_the_image(suffix, codec, pixel_format, tmp_path):
    frames = pictures(7)
    clip = write_clip(tmp_path / f"clip{suffix}", frames, codec, pixel_format)
    row = run(clip)
    result = read(tmp_path / f"clip_x2{suffix}")
    assert row["frames"] == len(result) == 7 and row["output"] == str(tmp_path / f"clip_x2{suffix}")
    assert (row["height"], row["width"]) == (72, 96) and row["fps"] > 0
    for ours, image in zip(result, frames):
        assert np.array_equal(ours.pixels, upscale(Bicubic(), image))


@pytest.mark.parametrize(
    "codec, pixel_format, space",
    [(codec, layout, space) for codec, layout in (("libx264", "yuv420p"), ("libx264", "yuv444p")) for space in (1, 6)]
    + [("mpeg4", "yuv420p", 6)],  # which cannot name its matrix, so the players' guess must be right
)
def test_lossy_video_is_within_the_codecs_loss(codec, pixel_format, space, tmp_path):
    frames = pictures(5)
    clip = write_clip(tmp_path / "clip.mp4", frames, codec, pixel_format, space=space)
    run(clip)
    given, result = read(clip), read(tmp_path / "clip_x2.mp4")
    with av.open(str(tmp_path / "clip_x2.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == pixel_format
        assert context.codec.canonical_name == ("h264" if codec == "libx264" else "mpeg4")
        if codec == "libx264":
            assert (context.colorspace, context.color_range) == (space, 1)
    for before, after in zip(given, result):
        error = after.pixels.astype(int) - upscale(Bicubic(), before.pixels)
        assert np.abs(error).mean() < 2.5
        assert np.abs(error.mean((0, 1))).max() < 2, "the colours have shifted"
    for before, image in zip(given, frames if codec == "libx264" else []):  # written without loss beyond chroma's
        assert np.abs(before.pixels.astype(int) - image).mean() < 4


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_flat_colours_stay_what_they_are(matrix, full, tmp_path):
    """Through a real file: a wrong matrix is off by 10 to 30 levels in green and red, a wrong range by 16."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    for colour in ((200, 40, 60), (30, 180, 50), (0, 0, 0), (255, 255, 255), (128, 128, 128)):
        red, green, blue = colour
        y = kr * red + (1 - kr - kb) * green + kb * blue
        planes = [y, (blue - y) / 2 / (1 - kb), (red - y) / 2 / (1 - kr)]
        luma, chroma, black = (1, 1, 0) if full else (219 / 255, 224 / 255, 16)
        values = [round(planes[0] * luma + black), *(round(p * chroma + 128) for p in planes[1:])]
        with av.open(str(tmp_path / "flat.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=24)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv444p"
            context = stream.codec_context
            context.colorspace, context.color_range = {"bt601": 6, "bt709": 1}[matrix], 2 if full else 1
            data = np.stack([np.full((16, 16), min(255, v), np.uint8) for v in values])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(data, format="yuv444p")))
            container.mux(stream.encode(None))
        run(tmp_path / "flat.mkv", overwrite=True)
        for path in (tmp_path / "flat.mkv", tmp_path / "flat_x2.mkv"):
            (frame,) = read(path)
            assert np.abs(frame.pixels.astype(int) - colour).max() <= 2, (path.name, colour, frame.pixels[0, 0])
        with av.open(str(tmp_path / "flat_x2.mkv")) as container:
            (frame,) = container.decode(video=0)
            assert np.abs(frame.to_ndarray().astype(int) - data[:, :1, :1]).max() <= 1


def test_ten_bits_stay_ten_bits(tmp_path):
    with av.open(str(tmp_path / "deep.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p10le"
        stream.codec_context.colorspace = 1
        ramp = np.broadcast_to(np.arange(500, 532, dtype=np.uint16) * 64, (32, 32))
        frame = av.VideoFrame.from_ndarray(np.dstack([ramp] * 3), format="rgb48le")
        container.mux(stream.encode(frame.reformat(format="yuv444p10le", dst_colorspace=1)))
        container.mux(stream.encode(None))
    run(tmp_path / "deep.mkv")
    with av.open(str(tmp_path / "deep_x2.mkv")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p10le"
    (frame,) = read(tmp_path / "deep_x2.mkv")
    assert frame.pixels.dtype == np.uint16 and len(np.unique(frame.pixels)) > 20, (
        "8 bits would have 8 levels of this ramp"
    )


def test_gray_stays_gray(tmp_path):
    clip = write_clip(tmp_path / "gray.mkv", pictures(2), "ffv1", "gray")
    assert read(clip)[0].pixels.ndim == 2
    run(clip)
    for before, after in zip(read(clip), read(tmp_path / "gray_x2.mkv")):
        assert np.abs(after.pixels.astype(int) - upscale(Bicubic(), before.pixels)).max() <= 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phones_rotation_is_applied(degrees, tmp_path):
    frames = pictures(3)
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 36, "yuv444p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this version of PyAV cannot write a rotation")
        stream.set_display_rotation(degrees)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "turned.mp4")) as container:
        counterclockwise = next(container.decode(video=0)).rotation
    assert counterclockwise % 360 in (degrees, 360 - degrees)
    row = run(tmp_path / "turned.mp4")
    upright = np.rot90(frames[0], counterclockwise // 90)
    assert (row["height"], row["width"]) == (2 * upright.shape[0], 2 * upright.shape[1])
    first = read(tmp_path / "turned_x2.mp4")[0].pixels
    assert np.abs(first.astype(int) - upscale(Bicubic(), np.ascontiguousarray(upright))).mean() < 4
    with av.open(str(tmp_path / "turned_x2.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0, "turned twice"


# ---- time and audio


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_uneven_timestamps_and_audio_are_kept(suffix, tmp_path):
    times = [0, 25, 60, 61, 130, 300]
    clip = write_clip(tmp_path / f"clip{suffix}", pictures(6), times=times, audio=True)
    run(clip)
    given, result = read(clip), read(tmp_path / f"clip_x2{suffix}")
    assert [f.pts * f.time_base for f in result] == [f.pts * f.time_base for f in given]
    assert len(audio_packets(clip)) > 5
    assert audio_packets(tmp_path / f"clip_x2{suffix}") == audio_packets(clip)


def test_titles_and_languages_are_kept(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", pictures(2), audio=True)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "named.mkv"), "w") as container:
        container.metadata["title"] = "A day"
        streams = {s.index: container.add_stream_from_template(s) for s in source.streams}
        streams[1].metadata["language"] = "fra"
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    run(tmp_path / "named.mkv")
    with av.open(str(tmp_path / "named_x2.mkv")) as container:
        assert container.metadata["title"] == "A day"
        assert container.streams.audio[0].metadata["language"] == "fra"


def test_audio_that_the_container_cannot_hold_is_one_line(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", pictures(2), audio=True)
    with pytest.raises(DarsrError, match=r"out\.webm: its audio \(aac\) cannot be stored in \.webm; write \.mkv"):
        run(clip, tmp_path / "out.webm")
    assert {p.name for p in tmp_path.iterdir()} == {"clip.mp4"}


def test_without_pyav_opencv_says_that_it_drops_the_audio(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", pictures(6), audio=True)
    given = read(clip)
    monkeypatch.setattr(open_video, "has_pyav", lambda: False)
    row = run(clip)
    assert row["frames"] == 6
    (line,) = row["said"]
    assert "without the audio" in line and 'pip install "av>=' in line
    result = read(tmp_path / "clip_x2.mp4")
    assert len(result) == 6
    for before, after in zip(given, result):
        assert np.abs(after.pixels.astype(int) - upscale(Bicubic(), before.pixels)).mean() < 12


# ---- what goes wrong


def test_nothing_is_overwritten_unasked(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", pictures(2))
    (tmp_path / "clip_x2.mkv").write_bytes(b"old")
    with pytest.raises(DarsrError, match="exists already"):
        run(clip)
    assert (tmp_path / "clip_x2.mkv").read_bytes() == b"old"


@pytest.mark.parametrize("content", [b"", b"no video" * 99])
@pytest.mark.parametrize("pyav", [True, False])
def test_no_video_is_one_line(content, pyav, tmp_path, monkeypatch):
    monkeypatch.setattr(open_video, "has_pyav", lambda: pyav)
    (tmp_path / "a.mp4").write_bytes(content)
    for name in ("a.mp4", "missing.mp4"):
        with pytest.raises(DarsrError, match=rf"{name}: .*; "):
            run(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_damaged_video_is_a_video_or_one_line(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", pictures(4), audio=True)
    data, random, refused = clip.read_bytes(), np.random.default_rng(0), 0
    for _ in range(30):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        clip.write_bytes(damaged[: len(data) if random.random() < 0.7 else random.integers(len(data))])
        try:
            run(clip, overwrite=True)
        except DarsrError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            assert not list(tmp_path.glob(".*"))
    assert refused > 3


@pytest.mark.parametrize("place", ["engine", "writer", "interrupt"])
def test_a_failure_on_the_way_leaves_nothing(place, tmp_path, monkeypatch):
    clip, count = write_clip(tmp_path / "clip.mkv", pictures(12), "ffv1", "bgr0"), 0
    error = {"engine": DarsrError("gpu", "out of memory"), "writer": OSError(28, "No space left on device")}.get(
        place, KeyboardInterrupt()
    )

    def fail(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise error

    if place == "writer":
        from darsr_deploy.video import pyav_writer

        monkeypatch.setattr(pyav_writer.AvWriter, "write", fail)
    else:
        honest = Bicubic.run
        monkeypatch.setattr(Bicubic, "run", lambda self, lr: fail() or honest(self, lr))
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt if place == "interrupt" else DarsrError):
        run(clip)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]
    assert threading.active_count() == threads


def test_a_full_disk_is_one_line(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of a process are of Unix")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    clip = write_clip(tmp_path / "clip.mkv", [noise] * 20, "ffv1", "bgr0")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        with pytest.raises(DarsrError, match=r"clip_x2\.mkv: could not be written"):
            run(clip)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]


# ---- y4m


def test_a_file_to_y4m_and_back(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", pictures(3), "ffv1", "bgr0")
    run(clip, tmp_path / "out.y4m")
    assert (tmp_path / "out.y4m").read_bytes().startswith(b"YUV4MPEG2 W96 H72 F24:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n")
    with open_reader(tmp_path / "out.y4m") as reader:
        y4m, info = list(reader), reader.info
    for ours, image in zip(y4m, pictures(3)):
        assert np.abs(ours.pixels.astype(int) - upscale(Bicubic(), image)).max() <= 3
    with open_reader(tmp_path / "out.y4m") as reader:
        assert isinstance(reader.info, VideoInfo)
        with open_writer(tmp_path / "b.mp4", tmp_path / "b.mp4", info, reader, pytest.fail) as writer:
            for frame in reader:
                writer.write(frame)
            writer.finish()
    for ours, theirs in zip(read(tmp_path / "b.mp4"), y4m):
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() < 2
    assert [f.pts * f.time_base for f in read(tmp_path / "b.mp4")] == [Fraction(i, 24) for i in range(3)]


# ---- adapting


def test_the_first_frames_give_the_adapter(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="adapting needs PyTorch (extra train)")
    from darsr_deploy.files.adapter import Adapter
    from darsr_train import runtime

    usual = runtime.checked_options
    monkeypatch.setattr(runtime, "checked_options", lambda *known: usual(*known, steps=1, references=2))

    black = [np.zeros((36, 48, 3), np.uint8)] * 2
    clip = write_clip(tmp_path / "clip.mkv", [*black, *pictures(3)], "ffv1", "bgr0")
    said, opened = [], []

    def opener(source: Source) -> Bicubic:
        opened.append(source)
        return Bicubic()

    options = VideoOptions(opener, None, say=said.append)
    infer_video(clip, None, False, places.Targets(False), options)
    assert opened == [Source(tmp_path / "clip.darsr", None, None, None)]
    assert Adapter.load(tmp_path / "clip.darsr").facts["source"]["height"] == 36
    assert len(read(tmp_path / "clip_x2.mkv")) == 5, "the frames that were looked at are done too"
    before = (tmp_path / "clip.darsr").read_bytes()
    infer_video(clip, None, False, places.Targets(True), options)
    assert (tmp_path / "clip.darsr").read_bytes() == before and len(said) == 1, "it is used, not made again"


def test_a_scene_change_brings_another_engine_while_frames_flow(tmp_path):
    pytest.importorskip("torch", reason="adapting needs PyTorch (extra train)")
    from export.inference.readapt import Readaptation

    release, seen = threading.Event(), []

    def adapt(pixels: np.ndarray, path: Path, report) -> None:
        seen.append(int(pixels[0, 0, 0]))
        assert release.wait(10)
        report({})

    first, second = Bicubic(), Bicubic()
    said: list[str] = []
    choose = Readaptation(first, adapt, lambda path: second, said.append)
    try:
        dark, light = np.full((9, 16, 3), 20, np.uint8), np.full((9, 16, 3), 200, np.uint8)
        assert [choose.engine_for(dark) for _ in range(3)] == [first] * 3
        assert [choose.engine_for(light) for _ in range(5)] == [first] * 5, "frames do not wait for the adaptation"
        release.set()
        deadline = time.monotonic() + 10
        while choose.engine_for(light) is first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert choose.engine_for(light) is second and choose.changes == 1 and seen == [200]
        assert first.closed and not second.closed
        assert said[0] == "frame 4: a new scene, adapting to it in the background"
        assert len(said) == 2 and said[1].endswith("the new scene's adapter takes over")
    finally:
        choose.close()
    assert second.closed


def test_a_further_cut_and_the_end_stop_an_adaptation(tmp_path):
    from export.inference.readapt import Readaptation

    begun = threading.Event()

    def adapt(pixels: np.ndarray, path: Path, report) -> None:
        begun.set()
        for _ in range(1000):
            report({})
            time.sleep(0.01)
        pytest.fail("was not stopped")

    choose = Readaptation(Bicubic(), adapt, lambda path: pytest.fail("its result is not wanted"), lambda _: None)
    dark, light = np.full((9, 16, 3), 20, np.uint8), np.full((9, 16, 3), 200, np.uint8)
    for picture in (dark, light):
        choose.engine_for(picture)
    assert begun.wait(10)
    choose.close()
    assert choose.changes == 0


def test_a_scene_that_cannot_be_adapted_to_keeps_the_engine():
    from export.inference.readapt import Readaptation

    said: list[str] = []

    def adapt(*_: object) -> None:
        raise DarsrError("frame", "is too small")

    first = Bicubic()
    choose = Readaptation(first, adapt, lambda path: Bicubic(), said.append)
    for level in (20, 200, 200):
        assert choose.engine_for(np.full((9, 16), level, np.uint8)) is first
    choose.close()
    assert "frame 2: not adapted to (frame: is too small)" in said


# ---- the command


@pytest.fixture
def model(tmp_path_factory) -> Path:
    """An exported model as far as the program can tell; it repeats every pixel, and starts without PyTorch."""
    pytest.importorskip("onnxruntime", reason="runs a model (extra ort)")
    pytest.importorskip("onnx", reason="makes a model (extra export)")
    from tests.support.onnx_models import doubling

    return doubling(tmp_path_factory.mktemp("model") / "doubling.onnx")


def y4m(count: int) -> bytes:
    random = np.random.default_rng(0)
    frames = [b"FRAME\n" + random.integers(16, 235, 16 * 12 * 3 // 2, np.uint8).tobytes() for _ in range(count)]
    return b"YUV4MPEG2 W16 H12 F25:1 Ip A1:1 C420mpeg2\n" + b"".join(frames)


def test_from_pipe_to_pipe(model):
    words = [sys.executable, str(ROOT / "cli.py"), "infer", "-", "--model", str(model)]
    done = subprocess.run(words, capture_output=True, timeout=120, input=y4m(3))
    assert done.returncode == 0, done.stderr
    header, _, body = done.stdout.partition(b"\n")
    assert header == b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED"
    assert len(body) == 3 * (6 + 32 * 24 * 3 // 2)
    assert b"3 frames" in done.stderr


def test_a_reader_that_goes_away_is_one_line(model):
    words = [sys.executable, str(ROOT / "cli.py"), "infer", "-", "--model", str(model)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write(y4m(3))
    process.stdin.close()
    lines = process.stderr.read().decode().splitlines()
    process.stderr.close()
    assert process.wait(60) == 1
    assert lines == ["error: standard output: was closed by the program that reads it; let it read to the end"]


def test_ctrl_c_leaves_nothing(model, tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", pictures(3, 240, 320) * 200, "ffv1", "bgr0")
    words = [sys.executable, str(ROOT / "cli.py"), "infer", str(clip), "--model", str(model)]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As in a terminal: what a shell starts in the background, these tests perhaps, inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until frames have been written
        partial = [p for p in tmp_path.iterdir() if p.name.startswith(".clip_x2")]
        if partial and partial[0].stat().st_size > 0:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.decode().splitlines() == ["interrupted"] and out == b""
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]


def test_without_torch_and_without_a_model_it_is_one_line(tmp_path, monkeypatch):
    """The line that the contract has for images, for a clip whose adapter could not be made here."""
    from export.inference import video as module

    clip = write_clip(tmp_path / "clip.mkv", pictures(2), "ffv1", "bgr0")

    def missing(*_: object) -> None:
        raise DarsrError("this command", "needs PyTorch")

    monkeypatch.setattr(module, "require_adapting", missing)
    options = VideoOptions(lambda _: pytest.fail("nothing can be opened"), None)
    with pytest.raises(DarsrError, match=r"run darsr export where you adapted and give the file with --model"):
        infer_video(clip, None, False, places.Targets(False), options)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]


@pytest.mark.parametrize("name", ["noext", "a.3gp", "a.xyz", "a.png"])
def test_the_content_decides_that_it_is_a_video(name, model, tmp_path):
    from typer.testing import CliRunner

    import cli

    clip = write_clip(tmp_path / "clip.mp4", pictures(3)).rename(tmp_path / name)
    done = CliRunner().invoke(cli.app, ["infer", str(clip), "--model", str(model)])
    assert done.exit_code == 0, done.stderr
    (result,) = tmp_path.glob("*_x2.*")
    assert len(read(result)) == 3 and result.suffix == (".3gp" if name == "a.3gp" else ".mkv")


def test_json_and_wrong_usage(tmp_path):
    from typer.testing import CliRunner

    import cli

    runner = CliRunner()
    assert runner.invoke(cli.app, ["infer", "-", "--no-adapter", "--json"], input=b"").exit_code == 2
    clip = write_clip(tmp_path / "clip.mkv", pictures(2))
    for more, why in (
        (["--readapt", "often"], "--readapt often"),
        (["-o", str(tmp_path / "a.xyz")], "cannot write .xyz"),
    ):
        result = runner.invoke(cli.app, ["infer", str(clip), "--no-adapter", "--engine", "torch", *more])
        assert result.exit_code == 1 and why in result.stderr and len(result.stderr.splitlines()) == 1
