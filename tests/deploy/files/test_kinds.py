"""A file of another kind than was asked for: the line says what it is and what takes it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.container import write_container
from darsr_deploy.files.kinds import KINDS, _by_content, another_kind, recognised
from darsr_deploy.images.arrays import write_image
from darsr_deploy.images.formats import SUFFIXES
from darsr_deploy.opening import open_engine
from darsr_deploy.video.frames import VideoInfo
from darsr_deploy.video.y4m import Y4mWriter

ADAPTER = Adapter("none", 2, "edge-x2", "0" * 64)


@pytest.fixture
def desk(tmp_path, photo, monkeypatch) -> Path:
    """One file of each kind."""
    import cv2

    monkeypatch.chdir(tmp_path)
    write_image(Path("photo.png"), photo[:24, :24])
    ADAPTER.save("photo.darsr")
    write_container("edge.safetensors", "backbone", 1, {}, {"a": np.ones(3, np.float32)})
    Path("theirs.safetensors").write_bytes(save({"a": np.ones(3, np.float32)}))
    Path("report.json").write_text(json.dumps({"rows": []}))
    Path("photo.engine").write_bytes(b"whatever TensorRT writes")
    Path("photo.bundle").mkdir()
    Path("photo.bundle/bundle.json").write_text("{}")
    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 24, (32, 32))
    clip.write(np.zeros((32, 32, 3), np.uint8))
    clip.release()
    with Y4mWriter(Path("clip.y4m"), VideoInfo(32, 24, 24)):
        pass
    return tmp_path


def test_every_kind_is_recognised(desk, photo):
    expected = {
        "photo.png": "image",
        "photo.darsr": "adapter",
        "edge.safetensors": "backbone",
        "theirs.safetensors": "weights",
        "report.json": "report",
        "photo.engine": "engine",
        "photo.bundle": "bundle",
        "clip.mp4": "video",
        "clip.y4m": "video",
        ".": "folder",
        "missing.png": None,
    }
    assert {name: recognised(Path(name)) for name in expected} == expected
    for suffix in SUFFIXES:
        write_image(Path(f"a{suffix}"), photo[:24, :24])
        assert recognised(Path(f"a{suffix}")) == "image", suffix


def test_the_content_counts_more_than_the_name(desk):
    Path("photo.png").rename("wrong.darsr")
    assert recognised(Path("wrong.darsr")) == "image"
    Path("empty.darsr").touch()
    assert recognised(Path("empty.darsr")) == "adapter"  # what is wrong with it is for its reader to say
    assert another_kind("empty.darsr", "adapter") is None


def test_an_exported_model_and_a_network_of_others_are_models(desk):
    onnx = pytest.importorskip("onnx", reason="the models are made with onnx (extra export)")
    from tests.support.onnx_models import convolutional

    onnx.save(convolutional(), "theirs.onnx")
    assert recognised(Path("theirs.onnx")) == "model"
    Path("theirs.onnx").rename("other.bin")
    assert recognised(Path("other.bin")) == "model"


def test_the_way_out_is_a_command_that_can_be_copied(desk):
    Path("photo.png").rename("my photo.png")
    assert str(another_kind("my photo.png", "adapter")) == (
        "my photo.png: is an image, not an adapter; darsr upscale 'my photo.png' and darsr adapt 'my photo.png' take it"
    )


def test_readers_say_it(desk):
    with pytest.raises(
        DarsrError,
        match=r"photo\.png: is an image, not an adapter; darsr upscale photo\.png and darsr adapt photo\.png",
    ):
        Adapter.load("photo.png")
    with pytest.raises(DarsrError, match=r"edge\.safetensors: is a backbone, not an adapter; --backbone edge"):
        Adapter.load("edge.safetensors")
    with pytest.raises(
        DarsrError, match=r"photo\.bundle: is a runtime bundle, not an adapter; .*--model photo\.bundle"
    ):
        Adapter.load("photo.bundle")
    with pytest.raises(DarsrError, match=r"photo\.png: is an image, not an ONNX model"):
        open_engine("photo.png")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("infer photo.png --model photo.darsr", "photo.darsr: is an adapter, not an ONNX model"),
        ("infer photo.png --model clip.mp4 --engine trt", "clip.mp4: is a video, not an ONNX model"),
        ("infer photo.png --adapter edge.safetensors", "edge.safetensors: is a backbone, not an adapter"),
        ("infer photo.darsr --no-adapter --engine torch", "photo.darsr: is an adapter, not an image"),
        ("infer photo.bundle --no-adapter --engine torch", "photo.bundle: is a runtime bundle, not an image"),
        ("infer photo.png --no-adapter --backbone photo.bundle", "photo.bundle: is a runtime bundle, not a backbone"),
        ("export photo.png", "photo.png: is an image, not an adapter"),
        ("adapt photo.darsr --device cpu", "photo.darsr: is an adapter, not an image"),
        ("adapt clip.mp4 --device cpu", "clip.mp4: is a video, not an image"),
        ("adapt photo.png --from photo.png", "photo.png: is an image, not an adapter"),
        ("bench photo.png", "photo.png: is an image, not an ONNX model"),
        ("bench --compare photo.png report.json", "photo.png: is an image, not a JSON report"),
        ("report --bench photo.darsr", "photo.darsr: is an adapter, not a JSON report"),
        ("backbone info photo.darsr", "photo.darsr: is an adapter, not a backbone"),
        ("backbone import photo.darsr", "photo.darsr: is an adapter, not a PyTorch weight file"),
    ],
)
def test_commands_say_it(desk, command, said):
    pytest.importorskip("torch", reason="most of these commands need PyTorch (extra train)")
    from tests.support.commands import refused

    refused(*command.split(), name=said)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda b: struct.pack("<Q", len(b)) + b"{" + b))
def test_no_content_is_an_error(content):
    assert _by_content(content) in (None, *KINDS)
