"""Adapter files: what is read is exactly what was written, or one line says why not."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from darsr_deploy.errors import DarsrError
from darsr_deploy.files import container
from darsr_deploy.files.adapter import VERSION, Adapter, adapter_path
from darsr_deploy.files.container import read_container, write_container
from darsr_deploy.files.kinds import another_kind, recognised

ARRAYS = {"taps": np.linspace(-1, 1, 13, dtype=np.float32), "kernel": np.full((3, 3), 1 / 9, np.float32)}
FACTS = {"profile": "fast", "seed": 7, "note": "4×5", "held_out_loss": {"prior": 0.25, "adapted": 0.125}}


def adapter(**changes) -> Adapter:
    return Adapter(
        **{
            "correction": "global",
            "scale": 2,
            "backbone": "edge-x2",
            "backbone_sha256": "0" * 64,
            "facts": FACTS,
            "arrays": ARRAYS,
            **changes,
        }
    )


def write_fields(path, drop: str = "", arrays: dict | None = None, **changes) -> None:
    """An adapter file whose checksum is right and whose content may be wrong."""
    fields = {
        "correction": "global",
        "scale": 2,
        "backbone": "edge-x2",
        "backbone_sha256": "0" * 64,
        "facts": FACTS,
        **changes,
    }
    fields.pop(drop, None)
    write_container(path, "adapter", VERSION, fields, ARRAYS if arrays is None else arrays)


def refusal(path, way_out: str = "make a new one with darsr adapt") -> str:
    with pytest.raises(DarsrError) as caught:
        Adapter.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1
    assert line.endswith(f"; {way_out}")
    return line


@pytest.fixture
def file(tmp_path):
    adapter().save(tmp_path / "a.darsr")
    return tmp_path / "a.darsr"


def same(a: Adapter, b: Adapter) -> bool:
    fields = ("correction", "scale", "backbone", "backbone_sha256", "facts")
    if any(getattr(a, f) != getattr(b, f) for f in fields) or a.arrays.keys() != b.arrays.keys():
        return False
    return all(a.arrays[n].dtype == b.arrays[n].dtype and np.array_equal(a.arrays[n], b.arrays[n]) for n in a.arrays)


# ---- what is right


@pytest.mark.parametrize("correction", ["none", "global", "network"])
def test_round_trip(correction, tmp_path):
    arrays = {"none": {}, "global": ARRAYS, "network": {"darm.head.weight": np.ones((2, 3, 3, 3), np.float32)}}[
        correction
    ]
    written = adapter(correction=correction, arrays=arrays, scale=4)
    digest = written.save(tmp_path / "a.darsr")
    assert digest == hashlib.sha256((tmp_path / "a.darsr").read_bytes()).hexdigest()
    assert same(Adapter.load(tmp_path / "a.darsr"), written)


def test_darm_arrays_go_by_the_names_of_its_state(tmp_path):
    weight = np.ones((2, 3, 3, 3), np.float32)
    read = adapter(correction="network", arrays={"darm.head.weight": weight, "kernel": ARRAYS["kernel"]}).darm_arrays()
    assert read.keys() == {"head.weight"} and read["head.weight"] is weight


def test_same_content_same_bytes(tmp_path):
    """Neither the order in which fields and arrays were put in nor the place of the file matters."""
    adapter().save(tmp_path / "a.darsr")
    turned = adapter(arrays=dict(reversed(ARRAYS.items())), facts=dict(reversed(FACTS.items())))
    (tmp_path / "folder").mkdir()
    turned.save(tmp_path / "folder" / "b.darsr")
    data = (tmp_path / "a.darsr").read_bytes()
    assert data == (tmp_path / "folder" / "b.darsr").read_bytes()
    assert str(tmp_path).encode() not in data


def test_the_layout_in_memory_does_not_matter(tmp_path):
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_container(tmp_path / "a", "adapter", 1, {}, {"x": square})
    write_container(tmp_path / "b", "adapter", 1, {}, {"x": np.asfortranarray(square)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_read_again_and_written_again_is_the_same_file(file, tmp_path):
    Adapter.load(file).save(tmp_path / "b.darsr")
    assert (tmp_path / "b.darsr").read_bytes() == file.read_bytes()


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    )
)
def test_any_json_facts_come_back(tmp_path_factory, facts):
    path = tmp_path_factory.getbasetemp() / "facts.darsr"
    write_container(path, "adapter", 1, facts, {})
    assert read_container(path, "adapter", 1, "")[0] == facts


def test_facts_that_json_cannot_hold_are_not_written(tmp_path):
    with pytest.raises(ValueError):
        adapter(facts={"loss": float("nan")}).save(tmp_path / "a.darsr")
    assert not list(tmp_path.iterdir())


# ---- what is damaged


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_never_a_silent_change(tmp_path_factory, place, change):
    """Anywhere in the file: an error, or (white space) the very same content."""
    path = tmp_path_factory.getbasetemp() / "flipped.darsr"
    adapter().save(path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= change
    path.write_bytes(data)
    try:
        read = Adapter.load(path)
    except DarsrError as error:
        assert str(path) in str(error)
    else:
        assert same(read, adapter())


def test_every_single_flipped_bit_of_the_arrays_is_found(file):
    good = file.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for position in range(start, len(good)):
        data = bytearray(good)
        data[position] ^= 1  # the last bit of a weight: nothing but a checksum can tell
        file.write_bytes(data)
        refusal(file)


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file(tmp_path_factory, place):
    path = tmp_path_factory.getbasetemp() / "short.darsr"
    adapter().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(place * len(data))])
    assert "damaged" in refusal(path)


@example(b"\x00\x00\x01\xb3")
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda b: len(b).to_bytes(8, "little") + b)))
def test_any_bytes_are_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.darsr"
    path.write_bytes(data)
    if recognised(path) == "adapter":
        assert "not a darsr adapter file" in refusal(path)
    else:  # four bytes are enough for the start of a video
        assert "not an adapter" in refusal(path, another_kind(path, "adapter").to_json()["way_out"])


@pytest.mark.parametrize(
    "text",
    [b"[1, 2]", b"null", b'{"__metadata__": {"darsr": "[]"}}', b'{"__metadata__": {"darsr": "{}"}}', b"[" * 20_000],
)
def test_json_of_another_kind_is_one_line(text, tmp_path):
    (tmp_path / "a.darsr").write_bytes(len(text).to_bytes(8, "little") + text)
    assert "not a darsr adapter file" in refusal(tmp_path / "a.darsr")


def test_other_safetensors_files_are_no_adapters(tmp_path):
    (tmp_path / "a.darsr").write_bytes(save_tensors(ARRAYS, {"format": "pt"}))
    takes = f"--backbone {tmp_path / 'a.darsr'} and darsr backbone import {tmp_path / 'a.darsr'} take it"
    assert "is a PyTorch weight file, not an adapter" in refusal(tmp_path / "a.darsr", takes)


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "a.darsr")
    assert "is a folder, not an adapter" in refusal(tmp_path, "give a file")


# ---- what is whole, but not what is expected


def test_another_version_says_which(tmp_path):
    write_container(tmp_path / "a.darsr", "adapter", 99, {}, {})
    assert f"format version 99, this program reads {VERSION}" in refusal(tmp_path / "a.darsr")


def test_another_kind_says_which(tmp_path):
    write_container(tmp_path / "a.darsr", "backbone", 1, {}, {})
    takes = f"--backbone {tmp_path / 'a.darsr'} takes it"
    assert "is a backbone, not an adapter" in refusal(tmp_path / "a.darsr", takes)


@pytest.mark.parametrize("field", ["correction", "scale", "backbone", "backbone_sha256", "facts"])
def test_a_missing_field_is_named(field, tmp_path):
    write_fields(tmp_path / "a.darsr", drop=field)
    assert f"field {field} is missing" in refusal(tmp_path / "a.darsr")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["taps", "kernel"])
def test_nan_and_infinity_name_the_array(name, value, tmp_path):
    array = ARRAYS[name].copy()
    array.flat[-1] = value
    write_fields(tmp_path / "a.darsr", arrays={**ARRAYS, name: array})
    assert re.search(rf"array {name} holds NaN or infinity", refusal(tmp_path / "a.darsr"))


@pytest.mark.parametrize("shape", [(12,), (14,), (1, 13), (13, 1), (0,), ()])
def test_taps_of_another_shape(shape, tmp_path):
    write_fields(tmp_path / "a.darsr", arrays={"taps": np.zeros(shape, np.float32)})
    assert "array taps" in refusal(tmp_path / "a.darsr")


@pytest.mark.parametrize(("correction", "named"), [("global", "taps"), ("network", "correction network")])
def test_missing_arrays_are_named(correction, named, tmp_path):
    write_fields(tmp_path / "a.darsr", correction=correction, arrays={"kernel": ARRAYS["kernel"]})
    assert named in refusal(tmp_path / "a.darsr")


@pytest.mark.parametrize("value", ["spline", "", None, 3, ["global"]])
def test_an_unknown_correction_lists_the_known_ones(value, tmp_path):
    write_fields(tmp_path / "a.darsr", correction=value)
    line = refusal(tmp_path / "a.darsr")
    assert repr(value) in line and "none, global or network" in line


@pytest.mark.parametrize("value", [3, 0, -2, "2", None, [2]])
def test_another_scale_lists_the_known_ones(value, tmp_path):
    write_fields(tmp_path / "a.darsr", scale=value)
    assert f"field scale is {value!r}, expected 2 or 4" in refusal(tmp_path / "a.darsr")


@pytest.mark.parametrize(
    ("field", "value"), [("backbone", 5), ("backbone_sha256", None), ("facts", [1]), ("facts", None)]
)
def test_a_field_of_another_type_is_named(field, value, tmp_path):
    write_fields(tmp_path / "a.darsr", **{field: value})
    assert f"field {field}" in refusal(tmp_path / "a.darsr")


def test_facts_that_are_no_object_are_one_line(tmp_path):
    write_container(tmp_path / "a.darsr", "adapter", 1, [1, 2], {})
    refusal(tmp_path / "a.darsr")


def test_nan_in_the_metadata_is_one_line(tmp_path):
    """Python's reader of JSON takes NaN, its writer (for the checksum) does not."""
    header = {"kind": "adapter", "version": VERSION, "facts": {"loss": float("nan")}, "checksum": "0"}
    (tmp_path / "a.darsr").write_bytes(save_tensors(ARRAYS, {container.METADATA_KEY: json.dumps(header)}))
    refusal(tmp_path / "a.darsr")


@pytest.mark.parametrize("change", ["missing", "shape", "extra"])
def test_a_correction_network_that_does_not_fit_names_the_tensor(change, tmp_path):
    torch = pytest.importorskip("torch", reason="the correction network is built by PyTorch (extra train)")
    from darsr_train.networks.darm import DARM
    from darsr_train.pipeline import correction_of

    state = {name: tensor.numpy() for name, tensor in DARM(channels=8).state_dict().items()}
    network = adapter(correction="network", arrays={f"darm.{n}": a for n, a in state.items()})
    x = torch.rand(1, 3, 6, 7)
    assert correction_of(network)(x).shape == x.shape  # it fits as it is
    name = "stages.1.squeeze.bias"
    if change == "missing":
        del network.arrays[f"darm.{name}"]
    elif change == "shape":
        network.arrays[f"darm.{name}"] = np.zeros(3, np.float32)
    else:
        name = "stages.9.bias"
        network.arrays[f"darm.{name}"] = np.zeros(3, np.float32)
    with pytest.raises(DarsrError, match=rf"^a\.darsr: .*{re.escape(name)}"):
        correction_of(network, "a.darsr")


# ---- names


@pytest.mark.parametrize("twin", ["photo.jpg", "photo.PNG", "photo.tiff", "photo.webp"])
def test_twins_get_the_whole_name(twin, tmp_path):
    (tmp_path / "photo.png").touch()
    assert adapter_path(tmp_path / "photo.png") == tmp_path / "photo.darsr"
    (tmp_path / twin).touch()
    assert adapter_path(tmp_path / "photo.png") == tmp_path / "photo.png.darsr"
    assert adapter_path(tmp_path / twin) == tmp_path / f"{twin}.darsr"


@pytest.mark.parametrize(
    "other", ["photo.txt", "photo.darsr", "photo2.jpg", "photo_x2.png", "a photo.png", "photo.old.png"]
)
def test_no_twins(other, tmp_path):
    (tmp_path / "photo.png").touch()
    (tmp_path / other).touch()
    assert adapter_path(tmp_path / "photo.png") == tmp_path / "photo.darsr"


@pytest.mark.parametrize("stem", ["[a]", "a*", "a?b", "photo.1", "mit leer zeichen", "[!a"])
def test_signs_that_mean_something_to_glob_are_only_signs(stem, tmp_path):
    (tmp_path / f"{stem}.png").touch()
    (tmp_path / "a.jpg").touch()  # matches the pattern [a].*
    assert adapter_path(tmp_path / f"{stem}.png").name == f"{stem}.darsr"
    (tmp_path / f"{stem}.jpg").touch()
    assert adapter_path(tmp_path / f"{stem}.png").name == f"{stem}.png.darsr"


def test_the_image_need_not_exist(tmp_path):
    assert adapter_path(tmp_path / "missing" / "photo.png") == tmp_path / "missing" / "photo.darsr"


@pytest.mark.parametrize("rounds", [1, 6])
def test_back_projection_comes_back(tmp_path, rounds):
    kernel = np.full((14, 14), 1 / 196, np.float32)
    Adapter("none", 2, "edge-x2", "0" * 64, {}, {"kernel": kernel}, rounds).save(tmp_path / "a.darsr")
    assert Adapter.load(tmp_path / "a.darsr").rounds == rounds


@pytest.mark.parametrize("field", [{"kernel": "kernel", "rounds": 0}, {"kernel": "other", "rounds": 3}, [3], 3])
def test_a_back_projection_nobody_knows_is_named(tmp_path, field):
    own = {"correction": "none", "scale": 2, "backbone": "b", "backbone_sha256": "0" * 64, "facts": {}}
    kernel = np.full((14, 14), 1 / 196, np.float32)
    write_container(tmp_path / "a.darsr", "adapter", VERSION, {**own, "backprojection": field}, {"kernel": kernel})
    with pytest.raises(DarsrError, match=r"a\.darsr: field backprojection is .*expected a kernel and 1 to 100 rounds"):
        Adapter.load(tmp_path / "a.darsr")


def test_back_projection_needs_a_kernel_of_even_side(tmp_path):
    Adapter("none", 2, "b", "0" * 64, {}, {"kernel": np.ones((13, 13), np.float32)}, 3).save(tmp_path / "a.darsr")
    with pytest.raises(DarsrError, match="back-projection needs a square of even side"):
        Adapter.load(tmp_path / "a.darsr")
