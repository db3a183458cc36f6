"""Engine files, the list of engines that may be loaded, the cache, sizes, and the metadata of ONNX files: no runtime needed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_json
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt import engine_file, trust
from darsr_deploy.trt.cache import EngineCache, cache_key, limit_bytes
from darsr_deploy.trt.engine_file import EngineFacts, read_engine, read_facts, sidecar_path, write_engine
from darsr_deploy.trt.shapes import Shapes, parse_shapes

FACTS = EngineFacts(
    ModelSpec(2, backbone="edge-x2", parity_psnr_db=80.5),
    family="trt-rtx",
    tensorrt="1.7.1.116",
    shapes=Shapes((8, 8), (24, 32), (48, 64)),
    onnx_sha256="0" * 64,
    targets=("sm_86", "sm_89"),
    layers={"CONVOLUTION HALF": 26},
)


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "photo.engine"
    write_engine(path, b"an engine" * 50, FACTS)
    return path


def test_an_engine_comes_back_with_its_facts(engine):
    data, facts = read_engine(engine)
    assert data == b"an engine" * 50
    assert facts == EngineFacts(**{**vars(FACTS), "sha256": hashlib.sha256(data).hexdigest(), "bytes": 450})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_noticed(engine, data):
    """In the engine always; in the sidecar unless it is white space, and then nothing else is read."""
    good = read_engine(engine)
    for path in (engine, sidecar_path(engine)):
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(flipped)
        try:
            found = read_engine(engine)
        except DarsrError as error:
            assert str(error).startswith(str(engine)) and "; " in str(error)
        else:
            assert path != engine and found == good
        path.write_bytes(original)


@pytest.mark.parametrize("lost", ["engine", "sidecar", "both"])
def test_a_lost_half_is_named(engine, lost):
    for path in {"engine": [engine], "sidecar": [sidecar_path(engine)]}.get(lost, [engine, sidecar_path(engine)]):
        path.unlink()
    with pytest.raises(DarsrError, match=r"cannot be read|there is no such file"):
        read_engine(engine)


@pytest.mark.parametrize(
    "change",
    [{"facts": {}}, {"version": 9}, {"kind": "model"}, {"facts": {**FACTS.to_json(), "shapes": [1]}}],
    ids=["nothing", "version", "kind", "shapes"],
)
def test_a_sidecar_that_was_written_otherwise(engine, change):
    """With a checksum that fits: still every field is looked at."""
    header = json.loads(sidecar_path(engine).read_text()) | change
    del header["checksum"]
    header["checksum"] = hash_json(header)
    sidecar_path(engine).write_text(json.dumps(header))
    with pytest.raises(DarsrError, match=r"photo\.engine\.json: "):
        read_facts(engine)


WRONG = {
    "sha256": 5,
    "bytes": "450",
    "typed": 1,
    "targets": "sm_86",
    "layers": {"CONVOLUTION": "26"},
    "device_parity_psnr_db": True,
    "gpu": None,
}


@pytest.mark.parametrize("fact", WRONG)
def test_a_fact_of_a_wrong_type_is_named(engine, fact):
    test_a_sidecar_that_was_written_otherwise(engine, {"facts": {**read_facts(engine).to_json(), fact: WRONG[fact]}})
    with pytest.raises(DarsrError, match=rf"photo\.engine\.json: .*\(field {fact} is "):
        read_facts(engine)


@pytest.mark.parametrize(
    "sizes", [[[3, 3], [4, 4], ["5", 5]], [[3, 3], [4, 4], [5.0, 5]], [[3], [4], [5]], [[3, 3, 3]] * 3]
)
def test_sizes_of_a_wrong_type_are_none(sizes):
    with pytest.raises(DarsrError, match="field shapes is not three sizes"):
        Shapes.from_json(sizes, "a.engine.json")


def test_a_contract_of_wrong_types_is_none():
    good = ModelSpec(2, parity_psnr_db=80, halo=3).to_json()
    assert ModelSpec.from_json(json.dumps(good), "a.onnx").parity_psnr_db == 80  # a whole number of decibels
    for name, value in {"scale": "2", "halo": 1.5, "backbone": None, "alignment": True}.items():
        with pytest.raises(DarsrError, match=r"a\.onnx: does not hold the metadata"):
            ModelSpec.from_json(json.dumps(good | {name: value}), "a.onnx")


def test_a_full_disk_leaves_the_older_engine(engine, monkeypatch):
    before = read_engine(engine)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_file.Path, "write_bytes", full)
    with pytest.raises(DarsrError, match="No space left on device"):
        write_engine(engine, b"another", FACTS)
    monkeypatch.undo()
    assert read_engine(engine) == before
    assert sorted(p.name for p in engine.parent.iterdir()) == ["photo.engine", "photo.engine.json"]


# --- trust


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "trusted-engines"


def test_only_what_was_built_here_is_trusted(state, engine):
    digest = read_facts(engine).sha256
    with pytest.raises(DarsrError, match="was not built on this machine"):
        trust.require_trust(engine, digest)
    trust.trust("f" * 64)
    with pytest.raises(DarsrError, match="--trust"):
        trust.require_trust(engine, digest)
    trust.trust(digest)
    trust.trust(digest)
    trust.require_trust(engine, digest)
    assert state.read_text().splitlines() == ["f" * 64, digest]


def test_a_line_that_a_power_cut_tore_costs_no_other_engine_its_trust(state, engine):
    digest = read_facts(engine).sha256
    trust.trust("f" * 64)
    with open(state, "a") as file:
        file.write("e" * 20)
    trust.trust(digest)
    trust.require_trust(engine, digest)
    trust.require_trust(engine, "f" * 64)
    with pytest.raises(DarsrError, match="was not built on this machine"):
        trust.require_trust(engine, "e" * 20 + digest[:44])


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_the_list_is_its_owners_alone(state, engine):
    digest = read_facts(engine).sha256
    trust.trust(digest)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    state.chmod(0o620)
    with pytest.raises(DarsrError, match=r"can be written by others.*chmod 600"):
        trust.require_trust(engine, digest)


# --- cache


def test_every_fact_makes_another_key():
    facts = {
        "model": "a",
        "precision": "fp32",
        "shapes": [[8, 8]],
        "tensorrt": "10.3",
        "gpu": "Orin",
        "target": "sm_87",
    }
    keys = {cache_key(**facts)} | {cache_key(**{**facts, name: "other"}) for name in facts}
    assert len(keys) == 1 + len(facts)
    assert cache_key(**dict(reversed(facts.items()))) == cache_key(**facts)


def put(cache: EngineCache, key: str, used: float, size: int = 1000) -> None:
    cache.folder.mkdir(exist_ok=True)
    write_engine(cache.path(key), bytes(size), FACTS)
    os.utime(cache.path(key), (used, used))


def keys(cache: EngineCache) -> set[str]:
    return {path.stem for path in cache.folder.glob("*.engine")}


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = EngineCache(tmp_path / "engines")
    for used, key in enumerate(("a", "b", "c", "d"), 1):
        put(cache, key, used)
    cache.used("a")
    assert cache.shrink(keep="d", limit=4000) == []
    assert cache.shrink(keep="b", limit=2500) == ["c", "d"]
    assert keys(cache) == {"a", "b"} and not sidecar_path(cache.path("c")).exists()
    assert cache.shrink(keep="b", limit=0) == ["a"] and keys(cache) == {"b"}


def test_an_engine_in_use_is_not_removed(tmp_path):
    cache = EngineCache(tmp_path / "engines")
    put(cache, "a", 1)
    put(cache, "b", 2)
    with cache.locked("a"):
        found: list[list[str]] = []
        thread = threading.Thread(target=lambda: found.append(EngineCache(cache.folder).shrink(keep="b", limit=0)))
        thread.start()
        thread.join()
        assert found == [[]]
    assert keys(cache) == {"a", "b"}


def test_two_builders_of_one_engine_build_it_once(tmp_path):
    said: list[str] = []
    built: list[int] = []
    inside = threading.Event()

    def build(number: int) -> None:
        with EngineCache(tmp_path / "engines", said.append).locked("key") as path:
            if not path.exists():
                inside.set()
                built.append(number)
                threading.Event().wait(0.2)
                path.write_bytes(b"engine")

    first = threading.Thread(target=build, args=(1,))
    second = threading.Thread(target=build, args=(2,))
    first.start()
    inside.wait(10)
    second.start()
    first.join()
    second.join()
    assert built == [1]
    assert said == ["another process is building this engine: waiting for it"]


def test_the_limit_is_a_number_of_megabytes(monkeypatch):
    monkeypatch.setenv("DARSR_CACHE_LIMIT_MB", "3")
    assert limit_bytes() == 3 * 2**20
    monkeypatch.setenv("DARSR_CACHE_LIMIT_MB", "much")
    with pytest.raises(DarsrError, match="DARSR_CACHE_LIMIT_MB=much: is not a number"):
        limit_bytes()


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DarsrError, match="set DARSR_CACHE"), EngineCache(tmp_path / "file" / "engines").locked("key"):
        pass


# --- sizes

sides = st.integers(3, 5000)


@given(sides, sides)
def test_one_size_is_static(height, width):
    shapes = parse_shapes(f"{height}x{width}", None)
    assert shapes.static and str(shapes) == f"{height}x{width}"
    assert shapes.holds(height, width) and not shapes.holds(height + 1, width)


@given(st.lists(sides, min_size=3, max_size=3), st.lists(sides, min_size=3, max_size=3))
def test_three_sizes_are_a_profile(heights, widths):
    sizes = list(zip(sorted(heights), sorted(widths)))
    shapes = parse_shapes(None, ",".join(f"{h}x{w}" for h, w in sizes))
    assert all(shapes.holds(*size) for size in sizes)
    assert Shapes.from_json(shapes.to_json(), "file") == shapes
    assert shapes.static == (sizes[0] == sizes[2])


@pytest.mark.parametrize(
    "shape, shapes, why",
    [
        ("160", None, "is not 1 size HxW"),
        ("16x16,20x20,30x30", None, "is not 1 size"),
        (None, "16x16,20x20", "is not 3 sizes"),
        (None, "16x16,8x20,30x30", "does not grow"),
        ("2x100", None, "side under 3"),
        ("-3x100", None, "is not 1 size"),
        ("9x9", "9x9,9x9,9x9", "give only one"),
    ],
)
def test_sizes_that_are_none(shape, shapes, why):
    with pytest.raises(DarsrError, match=why):
        parse_shapes(shape, shapes)


# --- metadata of ONNX files


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 2**14
    size = bytes([len(content)]) if len(content) < 128 else bytes([len(content) & 127 | 128, len(content) >> 7])
    return bytes([number << 3 | 2]) + size + content


SPEC = ModelSpec(4, precision="fp16", backbone="edge-x4")
MODEL = (
    b"\x08\x0a"  # ir_version 10
    + field(2, b"darsr")  # producer_name
    + field(14, field(1, b"other") + field(2, b"value"))
    + field(14, field(1, b"darsr") + field(2, json.dumps(SPEC.to_json()).encode()))
)


def test_the_contract_is_read_without_onnx(tmp_path):
    (tmp_path / "a.onnx").write_bytes(MODEL)
    assert read_spec(tmp_path / "a.onnx") == (MODEL, SPEC)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.integers(0, len(MODEL) - 1).map(lambda n: MODEL[:n])))
def test_what_is_no_model_is_one_line(tmp_path, data):
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(DarsrError, match=r"a\.onnx: (is not an ONNX file|does not hold the metadata)"):
        read_spec(tmp_path / "a.onnx")
