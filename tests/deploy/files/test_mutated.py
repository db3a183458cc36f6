"""Files of ours that another hand has changed, with a checksum that fits: read, or refused in one line; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darsr_deploy.bundle.adapter_inputs import bind_adapter
from darsr_deploy.bundle.manifest import GRAPHS, MANIFEST, Manifest
from darsr_deploy.bundle.weights import weight_shapes, widths_of
from darsr_deploy.errors import DarsrError, escape
from darsr_deploy.files.adapter import VERSION, Adapter
from darsr_deploy.files.container import read_container, write_container
from darsr_deploy.files.hashing import hash_json
from darsr_deploy.files.kinds import recognised
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.schema import make_dataclass, parse_json
from darsr_deploy.trt.engine_file import EngineFacts, read_facts, sidecar_path
from darsr_deploy.trt.shapes import Shapes

ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 1 << 70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["", "x" * 300, "network", "\x1b[31m", "a/../b", "\ud800", "2", "0" * 64]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["kernel", "rounds", "a"]), inner)
    ),
    max_leaves=6,
)
ARRAYS = st.sampled_from([(), (0,), (1,), (13,), (5, 5), (14, 14), (3, 4, 5), (2, 3, 3, 3), (1, 1, 1, 1, 1)])
SPEC = ModelSpec(2, backbone="small", backbone_sha256="0" * 64)
MANIFEST_VALUES = {
    "spec": SPEC.to_json(),
    "files": {f"{graph}.onnx": "0" * 64 for graph in GRAPHS},
    "weights": weight_shapes(4, 2),
    "kernel_side": 14,
    "halos": dict.fromkeys(GRAPHS, 2),
    "alignment": 1,
    "bytes_per_pixel": dict.fromkeys(GRAPHS, 100),
    "whole_because": "",
    "kind": "bundle",
    "version": 1,
}
FACTS = EngineFacts(SPEC, "trt", "10.3", Shapes((3, 3), (9, 9), (20, 20)), "0" * 64)


def one_line(error: DarsrError, path: Path) -> None:
    line = str(error)
    assert line.startswith(str(path)) and "; " in line and len(line) < 1000 and line.isprintable()


@given(st.sampled_from(["correction", "scale", "backbone", "backbone_sha256", "facts", "backprojection", "more"]), ODD)
@settings(max_examples=150)
def test_an_adapters_fields(tmp_path_factory, name, value):
    path = tmp_path_factory.getbasetemp() / "fields.darsr"
    fields = {
        "correction": "none",
        "scale": 2,
        "backbone": "small",
        "backbone_sha256": "0" * 64,
        "facts": {},
        name: value,
    }
    write_container(path, "adapter", VERSION, fields, {"kernel": np.full((14, 14), 1 / 196, np.float32)})
    try:
        adapter = Adapter.load(path)
    except DarsrError as error:
        one_line(error, path)
    else:
        assert adapter.correction == "none" and adapter.scale == 2 and 0 <= adapter.rounds <= 100


@given(
    st.sampled_from(["none", "global", "network"]),
    st.dictionaries(
        st.sampled_from(["taps", "kernel", "darm.head.weight", "darm.head.bias", "darm.tail.weight", "darm.tail.bias",
                         "darm.dictionary", "darm.stages.0.squeeze.bias", "darm.\x1b[2J"]),
        st.tuples(ARRAYS, st.sampled_from([np.float32, np.float16, np.int64])),
    ),
    st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=150)
def test_an_adapters_arrays(tmp_path_factory, correction, shapes, rounds):
    path = tmp_path_factory.getbasetemp() / "arrays.darsr"
    arrays = {name: np.ones(shape, dtype) for name, (shape, dtype) in shapes.items()}
    Adapter(correction, 2, "small", "0" * 64, {}, arrays, rounds).save(path)
    try:
        adapter = Adapter.load(path)
        widths_of(adapter)
        bind_adapter(adapter, make_dataclass(Manifest, MANIFEST_VALUES), "b.bundle", str(path))
    except DarsrError as error:
        one_line(error, path)


@given(st.lists(st.tuples(st.sampled_from([*MANIFEST_VALUES, "more"]), ODD), min_size=1, max_size=2))
@settings(max_examples=150)
def test_a_bundles_manifest(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp() / "b.bundle"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(MANIFEST_VALUES | dict(changes)))
    try:
        manifest = Manifest.load(folder)
    except DarsrError as error:
        one_line(error, folder / MANIFEST)
    else:
        assert manifest.spec.scale >= 1


@given(st.sampled_from([*FACTS.to_json(), "more"]), ODD)
@settings(max_examples=150)
def test_an_engines_sidecar(tmp_path_factory, name, value):
    engine = tmp_path_factory.getbasetemp() / "a.engine"
    header = {"kind": "engine", "version": 1, "facts": FACTS.to_json() | {name: value}}
    sidecar_path(engine).write_text(json.dumps(header | {"checksum": hash_json(header)}))
    try:
        assert read_facts(engine).family == "trt" or name == "family"
    except DarsrError as error:
        one_line(error, sidecar_path(engine))


@given(st.sampled_from([*SPEC.to_json(), "more"]), ODD)
@settings(max_examples=150)
def test_a_models_metadata(name, value):
    try:
        assert ModelSpec.from_json(json.dumps(SPEC.to_json() | {name: value}), "a.onnx").alignment >= 1
    except DarsrError as error:
        one_line(error, Path("a.onnx"))


@given(st.sampled_from(["kind", "version", "facts", "checksum", "more"]), ODD)
@settings(max_examples=150)
def test_a_containers_header(tmp_path_factory, name, value):
    from safetensors.numpy import save

    path = tmp_path_factory.getbasetemp() / "header.darsr"
    header = {"kind": "adapter", "version": VERSION, "facts": {}, "checksum": "", name: value}
    path.write_bytes(save({"a": np.ones(3, np.float32)}, {"darsr": json.dumps(header)}))
    recognised(path)
    with pytest.raises(DarsrError) as caught:
        read_container(path, "adapter", VERSION, "make a new one")
    one_line(caught.value, path)


@given(
    st.sampled_from(["architecture", "scale", "hyper", "more"]),
    st.one_of(ODD, st.dictionaries(st.sampled_from(["channels", "blocks", "x"]), ODD)),
)
@settings(max_examples=60)
def test_a_backbones_facts(tmp_path_factory, name, value):
    pytest.importorskip("torch", reason="backbones are PyTorch modules (extra train)")
    from darsr_train.backbones import load_backbone

    path = tmp_path_factory.getbasetemp() / "own.safetensors"
    facts = {"architecture": "edge", "scale": 2, "hyper": {}, name: value}
    write_container(path, "backbone", 1, facts, {"a": np.ones(3, np.float32)})
    with pytest.raises(DarsrError) as caught:
        load_backbone(str(path), None)
    assert str(caught.value).isprintable() and "; " in str(caught.value)


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_json_nested_without_end(opened, tmp_path):
    text = opened * 200_000
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DarsrError, match=r"bundle\.json: is damaged"):
        Manifest.load(tmp_path)
    (tmp_path / "a.darsr").write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(DarsrError, match="is not a darsr adapter file"):
        Adapter.load(tmp_path / "a.darsr")


@pytest.mark.parametrize(
    "text", ["[1]", "3", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', b"\xff"]
)
def test_what_strict_json_is_not(text):
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json('{"a": [1, 2.5, null, "b"]}') == {"a": [1, 2.5, None, "b"]}


def test_text_from_files_does_not_reach_the_terminal(tmp_path):
    """Colours, cleared screens, titles of windows, and letters that turn the line round."""
    path = tmp_path / "a.darsr"
    fields = {
        "correction": "\x1b]0;owned\x07\x1b[2J\u202e",
        "scale": 2,
        "backbone": "b",
        "backbone_sha256": "",
        "facts": {},
    }
    write_container(path, "adapter", VERSION, fields, {})
    with pytest.raises(DarsrError) as caught:
        Adapter.load(path)
    assert str(caught.value).isprintable() and "x1b" in str(caught.value)
    assert escape("a\x1b[31mb\nc\u202e\udcff") == r"a\x1b[31mb\nc\u202e\udcff"
    assert escape("schöne Grüße 日本 😀") == "schöne Grüße 日本 😀"


def test_a_name_that_no_file_can_have_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="these commands need PyTorch (extra train)")
    from tests.support.commands import refused

    monkeypatch.chdir(tmp_path)
    long = "a" * 300
    for words in (
        ("infer", f"{long}.png", "--no-adapter", "--engine", "torch"),
        ("adapt", f"{long}.png"),
        ("export", long),
    ):
        refused(*words, name=long)
    Path("b.darsr").write_bytes(b"")
    Adapter("none", 2, long[:200], "0" * 64).save("b.darsr")
    refused("export", "b.darsr", name="b.darsr")
