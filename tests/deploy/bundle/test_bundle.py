"""The runtime bundle: any adapter of its architecture, whole and in tiles, without an export and without PyTorch."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from darsr_deploy.bundle import ort_bundle as bundle_module
from darsr_deploy.bundle.manifest import MANIFEST, Manifest
from darsr_deploy.bundle.ort_bundle import Bundle
from darsr_deploy.bundle.weights import correction_weights, weight_shapes
from darsr_deploy.engines import ort
from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.onnx_bytes import bind
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr
from darsr_train.backbones import SRFBN, EdgeSR
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.pipeline import Pipeline, pipeline_of
from export.artefacts.bundle import build_graphs, export_bundle
from export.artefacts.model import export_onnx
from export.folding.fold import fold_dictionary
from export.onnx_graphs import pieces
from export.samples import Samples, natural_noise
from tests.export.artefacts.test_model import gentle, pipeline
from tests.support.commands import BRIEF, darsr, done, names, refused, strict_json

pytestmark = pytest.mark.usefixtures("built_once")
SHA, CHANNELS = "b" * 64, 16


def backbone(scale: int) -> nn.Module:
    return pipeline("none", scale).backbone


def adapter(kind: str = "network", scale: int = 2, rounds: int = 0, seed: int = 3, dictionary: bool = False) -> Adapter:
    torch.manual_seed(seed)
    random, arrays = np.random.default_rng(seed), {}
    if kind == "network":
        made = gentle(DARM(correction_dictionary() if dictionary else None, channels=CHANNELS))
        arrays = {f"darm.{name}": tensor.numpy() for name, tensor in made.state_dict().items()}
    elif kind == "global":
        arrays = {"taps": np.array([0.02, -0.01] * 6 + [0.88], np.float32)}
    kernel = random.random((6 * scale, 6 * scale)).astype(np.float32)
    return Adapter(kind, scale, "small", SHA, {}, {**arrays, "kernel": kernel / kernel.sum()}, rounds)


@pytest.fixture(scope="session")
def _folders():
    return {}


@pytest.fixture
def made(_folders, tmp_path_factory, built_once):
    """Makes a bundle, once a session for each scale and precision."""

    def make(scale: int = 2, precision: str = "fp32") -> Path:
        if (scale, precision) not in _folders:
            folder, own = tmp_path_factory.mktemp("bundles") / "small.bundle", adapter(scale=scale, rounds=1)
            own.save(folder.with_name("own.darsr"))
            spec = ModelSpec(scale, precision=precision, backbone="small", backbone_sha256=SHA)
            network = pipeline_of(own, backbone(scale))
            facts = export_bundle(network, own, folder, spec, samples=Samples(), own=folder.with_name("own.darsr"))
            assert facts["parity_psnr_db"] >= facts["parity_floor_db"]
            _folders[scale, precision] = folder
        return _folders[scale, precision]

    return make


KINDS = [("network", 0), ("network", 2), ("global", 1), ("none", 0), ("none", 1)]


@pytest.mark.parametrize(("kind", "rounds"), KINDS)
@pytest.mark.parametrize("scale", [2, 4])
def test_every_adapter_gives_what_pytorch_gives(made, kind, rounds, scale):
    mine = adapter(kind, scale, rounds, seed=5)
    with Bundle(made(scale)).engine(mine) as engine:
        for shape in ((3, 3), (17, 30)):
            lr = natural_noise(*shape)
            expected = pipeline_of(mine, backbone(scale))(torch.from_numpy(lr)).numpy()
            assert np.abs(engine.run(lr) - expected).max() < 2e-5
        assert engine.spec.form == kind and engine.spec.scale == scale and engine.name == "ort"


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_give_the_whole_picture(made, scale):
    """All kinds of corrections, with and without back-projection, over sizes of images and tiles."""
    opened = Bundle(made(scale))
    engines = {case: opened.engine(adapter(case[0], scale, case[1])) for case in KINDS}

    @settings(max_examples=25)
    @given(st.sampled_from(KINDS), st.integers(3, 75), st.integers(3, 75), st.integers(16, 50))
    def check(case, height, width, tile):
        engine, lr = engines[case], natural_noise(height, width)
        whole, tiled = engine.run(lr), TiledEngine(engine, tile).run(lr)
        assert np.abs(tiled - whole).max() < 1e-5  # a grey level is 4e-3

    check()
    halos = {case: engine.locality.halo for case, engine in engines.items()}
    assert halos["none", 0] == 4 and halos["network", 0] == 10 and halos["network", 2] > halos["network", 0]


def test_fp16_passes_its_gate_and_tiles_too(made):
    mine = adapter(rounds=1)
    with Bundle(made(2, "fp16")).engine(mine) as engine:
        lr = natural_noise(50, 66)
        whole = engine.run(lr)
        assert engine.spec.precision == "fp16" and engine.spec.parity_psnr_db >= 50
        assert psnr(whole, pipeline_of(mine, backbone(2))(torch.from_numpy(lr)).numpy(), peak=1.0) > 50
        assert np.abs(TiledEngine(engine, 20).run(lr) - whole).max() < 1 / 255
    with pytest.raises(DarsrError, match="precision int8: a bundle has fp32 or fp16"):
        export_bundle(None, mine, Path("x"), ModelSpec(2, precision="int8"))


def test_a_bundle_equals_the_single_file(made, tmp_path):
    mine = adapter(seed=3)
    export_onnx(pipeline_of(mine, backbone(2)), tmp_path / "m.onnx", ModelSpec(2))
    lr = natural_noise(40, 52)
    with OrtEngine(tmp_path / "m.onnx") as single, Bundle(made()).engine(mine) as engine:
        assert np.abs(single.run(lr) - engine.run(lr)).max() < 1e-6


@pytest.mark.parametrize(("form", "correction"), [("filters", "taps"), ("global", "global"), ("none", "none")])
def test_single_files_of_the_other_forms_run_in_tiles(form, correction, tmp_path):
    photo = natural_noise(70, 66, seed=5)
    export_onnx(pipeline(correction), tmp_path / "m.onnx", ModelSpec(2, form), None, Samples(photo, "0" * 64))
    with OrtEngine(tmp_path / "m.onnx") as engine:
        assert engine.locality.halo == {"filters": 6, "global": 6, "none": 4}[form]
        for tile in (16, 37):
            assert np.abs(TiledEngine(engine, tile).run(photo) - engine.run(photo)).max() < 1e-5
        if form == "filters":
            with pytest.raises(DarsrError, match="holds the filters of one image of 66x70"):
                TiledEngine(engine, 16).run(photo[:, :, :-1])


def test_srfbn_runs_in_tiles(tmp_path):
    torch.manual_seed(0)
    export_onnx(
        Pipeline(nn.Identity(), SRFBN(4, channels=8, steps=1).eval()), tmp_path / "m.onnx", ModelSpec(4, "none")
    )
    lr = natural_noise(60, 64)
    with OrtEngine(tmp_path / "m.onnx") as engine:
        assert engine.locality.halo == 1 + 6 + 2
        assert np.abs(TiledEngine(engine, 16).run(lr) - engine.run(lr)).max() < 1e-5


def test_two_adapters_share_the_backbone(made, monkeypatch):
    opened_graphs, open_session = [], ort.open_session

    def counting(model, what, *rest):
        opened_graphs.append(Path(what).stem)
        return open_session(model, what, *rest)

    monkeypatch.setattr(bundle_module, "open_session", counting)
    bundle_module._kept.cache_clear()
    engines = [bundle_module.open_bundle(made()).engine(adapter(seed=seed)) for seed in (3, 4)]
    lr = natural_noise(20, 20)
    first, second = (engine.run(lr) for engine in engines)
    assert np.abs(first - second).max() > 1e-3
    assert sorted(opened_graphs) == ["backbone", "correction", "correction"]
    assert (engines[0].run(lr) == first).all()


# ---- what does not fit, what is damaged


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scale": 4}, "is an adapter for scale 4, and .* is for 2"),
        ({"backbone_sha256": "c" * 64}, "was fitted through another small than the one in"),
        ({"backbone": "big", "backbone_sha256": "c" * 64}, "was fitted through the backbone big, and .* holds small"),
        ({"rounds": 1, "arrays": {"kernel": np.ones((60, 60), np.float32)}}, "its kernel is 60 pixels wide"),
    ],
)
def test_an_adapter_that_does_not_fit_is_named(made, change, why):
    values = {**vars(adapter("none")), **change}
    with pytest.raises(DarsrError, match=rf"a\.darsr: {why}"):
        Bundle(made()).engine(Adapter(**values), "a.darsr")


def test_another_correction_network_is_named(made):
    wide = {f"darm.{n}": t.numpy() for n, t in DARM(channels=8).state_dict().items()}
    with pytest.raises(DarsrError, match=r"another than the bundle's \(head.bias is \[8\], expected \[16\]\)"):
        Bundle(made()).engine(Adapter("network", 2, "small", SHA, {}, wide))
    more = {**adapter().arrays, "darm.more": np.zeros(1, np.float32)}
    with pytest.raises(DarsrError, match="more is not known"):
        Bundle(made()).engine(Adapter("network", 2, "small", SHA, {}, more))


def test_a_damaged_bundle_is_named(made, tmp_path):
    folder = Path(shutil.copytree(made(), tmp_path / "b"))
    manifest = json.loads((folder / MANIFEST).read_text())
    for change, why in (
        ({"version": 99}, "has format version 99, this program reads 1"),
        ({"kind": "model"}, "does not describe a bundle"),
        ({"halos": {}}, "field halos"),
        ({"bytes_per_pixel": {**manifest["bytes_per_pixel"], "stats0": None}}, "field bytes_per_pixel"),
        ({"files": {}}, "field files"),
        ({"kernel_side": "14"}, "field kernel_side"),
        ({"more": 1}, "field more is not known"),
        ({"spec": {"scale": 2}}, "does not hold the metadata"),
    ):
        (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DarsrError, match=why):
            Bundle(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(DarsrError, match=r"bundle\.json: is damaged"):
        Bundle(folder)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    data = bytearray((folder / "backbone.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "backbone.onnx").write_bytes(data)
    with pytest.raises(DarsrError, match=r"backbone\.onnx: is not the file that bundle\.json lists"):
        Bundle(folder)
    (folder / "backbone.onnx").unlink()
    with pytest.raises(DarsrError, match=r"backbone\.onnx: cannot be read"):
        Bundle(folder)
    with pytest.raises(DarsrError, match=r"is not a bundle: bundle\.json is missing"):
        Bundle(tmp_path)


def test_a_bundle_that_differs_is_not_written(tmp_path, monkeypatch):
    mine = adapter()
    network = pipeline_of(mine, backbone(2))
    monkeypatch.setattr("export.artefacts.bundle.figure", lambda got, expected: 31.4)
    with pytest.raises(DarsrError, match=r"x\.bundle: .*31\.4 dB, at least 80\.0 dB"):
        export_bundle(network, mine, tmp_path / "x.bundle", ModelSpec(2, backbone="small", backbone_sha256=SHA))
    assert not list(tmp_path.iterdir())


def test_the_same_weights_give_the_same_bundle(made, tmp_path):
    own = adapter(rounds=1)
    spec = ModelSpec(2, backbone="small", backbone_sha256=SHA)
    export_bundle(
        pipeline_of(own, backbone(2)), own, tmp_path / "b", spec, samples=Samples(), own=made().parent / "own.darsr"
    )
    assert names(tmp_path / "b") == names(made())
    for name in names(made()):
        assert (tmp_path / "b" / name).read_bytes() == (made() / name).read_bytes()
    assert b"site-packages" not in (made() / "backbone.onnx").read_bytes()


def test_a_backbone_that_pools_runs_whole_and_says_so(made, tmp_path):
    folder = Path(shutil.copytree(made(), tmp_path / "b"))
    manifest = Manifest.load(folder)
    why = "ReduceMean over the whole picture"
    changed = {"halos": {**manifest.halos, "backbone": None}, "whole_because": why}
    Manifest(**vars(manifest) | changed).save(folder)
    engine = Bundle(folder).engine(adapter())
    assert engine.run(natural_noise(20, 20)).shape == (1, 3, 40, 40)
    with pytest.raises(DarsrError, match=rf"--tile 16: the backbone takes whole images \({why}\)"):
        TiledEngine(engine, 16)


# ---- weights as constants


def test_bound_inputs_are_constants_and_the_rest_is_as_it_was():
    shapes = weight_shapes(4, 2)
    model = pieces.correction(shapes)
    weights = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    bound = onnx.load_from_string(bind(model.SerializeToString(), {**weights, "of another graph": np.zeros(1)}))
    assert [value.name for value in bound.graph.input] == ["lr"]
    found = {t.name: onnx.numpy_helper.to_array(t) for t in bound.graph.initializer}
    assert all((found[name] == weights[name]).all() for name in shapes)
    assert bound.graph.node == model.graph.node and bound.functions == model.functions
    assert bind(model.SerializeToString(), {}) == model.SerializeToString()
    onnx.checker.check_model(bound)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_model_are_refused_or_kept(data):
    with contextlib.suppress(ValueError):
        assert len(bind(data, {})) >= 0


def test_a_dictionary_is_folded_as_export_folds_it():
    torch.manual_seed(1)
    network = DARM(correction_dictionary(), channels=8)
    arrays = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    shapes = weight_shapes(8, 8)
    folded = fold_dictionary(network).state_dict()
    assert {name: list(t.shape) for name, t in folded.items()} == shapes
    got = correction_weights(arrays, shapes, "a.darsr")
    for name, tensor in folded.items():
        assert np.abs(got[name] - tensor.numpy()).max() < 1e-6
    arrays["dictionary"] = arrays["dictionary"] + np.arange(25, dtype=np.float32).reshape(5, 5)
    with pytest.raises(DarsrError, match="not point-symmetric"):
        correction_weights(arrays, shapes, "a.darsr")


def test_an_adapter_with_a_dictionary_runs(made):
    mine = adapter(dictionary=True)
    lr = natural_noise(20, 30)
    expected = pipeline_of(mine, backbone(2))(torch.from_numpy(lr)).numpy()
    assert np.abs(Bundle(made()).engine(mine).run(lr) - expected).max() < 2e-5


def test_the_backbone_graph_is_not_clipped():
    network = EdgeSR(2, channels=8, blocks=2).eval()
    graphs = build_graphs(network, (8, 8), 14, "fp32")
    assert graphs["backbone"].graph.node[-1].op_type != "Clip"
    assert [value.name for value in graphs["backbone"].graph.output] == ["sr"]


# ---- as typed


@pytest.fixture(scope="module")
def _desk(photo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_image(folder / "photo.png", photo)
    write_image(folder / "other.png", photo[::-1, :70])
    for name in ("photo.png", "other.png"):
        done("adapt", folder / name, *BRIEF)
    return folder


@pytest.fixture
def desk(_desk, tmp_path, monkeypatch) -> Path:
    """photo and other, each with its adapter."""
    for path in _desk.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WITHOUT = """
import sys
for name in ("torch", "onnx", "onnxscript", "ml_dtypes", "skimage"):
    sys.modules[name] = None
from cli import app
app()
"""


def test_on_a_device_an_adapter_is_all_that_is_copied(desk):
    row = strict_json(done("export", "photo.darsr", "--split", "--json").stdout)
    assert (row["model"], row["format"], row["precision"]) == ("photo.bundle", "bundle", "fp32")
    assert row["bytes"] == sum(p.stat().st_size for p in (desk / "photo.bundle").iterdir())
    done("infer", "other.png", "-o", "here.png")
    (desk / "device").mkdir()
    for name in ("other.png", "other.darsr"):
        shutil.copy(name, "device")
    shutil.copytree("photo.bundle", "device/photo.bundle")
    line = ["infer", "other.png", "--model", "photo.bundle", "--adapter", "other.darsr", "--tile", "32", "--json"]
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, *line], cwd=desk / "device", capture_output=True, text=True,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(desk)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert strict_json(ran.stdout)["engine"] == "ort"
    got, here = (read_image(Path(p)).astype(int) for p in ("device/other_x2.png", "here.png"))
    assert np.abs(got - here).max() <= 1


def test_which_adapter_a_bundle_runs(desk):
    done("export", "photo.darsr", "--split", "-o", "b")
    assert names(desk / "b") >= {"bundle.json", "backbone.onnx", "adapter.darsr"}
    for name in ("photo", "other"):
        done("infer", f"{name}.png", "-o", f"{name}_own.png")
    done("infer", "other.png", "--model", "b", "-o", "beside.png")
    assert (read_image(Path("beside.png")) == read_image(Path("other_own.png"))).all()
    Path("other.darsr").rename("moved.darsr")
    done("infer", "other.png", "--model", "b", "-o", "bundled.png")  # that of the bundle
    assert (read_image(Path("bundled.png")) != read_image(Path("other_own.png"))).any()
    done("infer", "other.png", "--model", "b", "--adapter", "moved.darsr", "-o", "given.png")
    assert (read_image(Path("given.png")) == read_image(Path("other_own.png"))).all()
    assert darsr("infer", "other.png", "--model", "b", "--no-adapter").exit_code == 2
    assert "scale 2, asked for 4" in refused("infer", "other.png", "--model", "b", "--scale", "4", name="b")
    assert "PyTorch" in refused("infer", "photo.png", "--model", "b", "--engine", "torch", name="b")


def test_a_second_adapter_needs_no_export(desk, monkeypatch):
    done("infer", "photo.png")
    monkeypatch.setattr(
        "export.artefacts.subject.Subject.require_torch", lambda subject: pytest.fail("it asked for PyTorch")
    )
    assert "exporting" not in done("infer", "other.png").stderr


def test_a_damaged_bundle_in_the_cache_is_made_again(desk, cache, monkeypatch):
    monkeypatch.setenv("DARSR_CACHE", str(desk / "cache"))
    half = ("--precision", "fp16")  # fp32 comes with the package
    assert "exporting the backbone" in done("infer", "photo.png", "-o", "1.png", *half).stderr
    (folder,) = (desk / "cache" / "bundles").iterdir()
    (folder / "correction.onnx").write_bytes(b"none")
    bundle_module._kept.cache_clear()
    assert "exporting the backbone" in done("infer", "photo.png", "-o", "2.png", *half).stderr
    assert (read_image(Path("1.png")) == read_image(Path("2.png"))).all()


def test_folders_and_options_that_do_not_fit(desk):
    assert "leave out --form" in refused("export", "photo.darsr", "--split", "--form", "global", name="--form global")
    assert "fp32 or fp16" in refused("export", "photo.darsr", "--split", "--precision", "int8", name="precision int8")
    (desk / "full").mkdir()
    (desk / "full" / "diary.txt").write_text("mine")
    line = refused("export", "photo.darsr", "--split", "-o", "full", "--overwrite", name="full")
    assert "other things in it" in line and names(desk / "full") == {"diary.txt"}
    assert "is not a bundle" in refused("infer", "photo.png", "--model", "full", name="full")
    done("export", "photo.darsr", "--split")
    assert "--overwrite" in refused("export", "photo.darsr", "--split", name="photo.bundle")
    done("export", "photo.darsr", "--split", "--overwrite")
    assert not [name for name in names(desk) if name.startswith(".")]


def test_tiles_as_typed(desk):
    for tile in ("0", "32", "auto"):
        done("infer", "photo.png", "--tile", tile, "-o", f"{tile}.png")
    whole = read_image(Path("0.png")).astype(int)
    assert (whole == read_image(Path("auto.png"))).all()
    assert np.abs(whole - read_image(Path("32.png"))).max() <= 1
    assert (
        "--tile 16: overlap makes "
        in done("infer", "photo.png", "--tile", "16", "-o", "16.png", "--threads", "1").stderr
    )
    refused("infer", "photo.png", "--tile", "7", name="--tile 7")
    line = refused("infer", "photo.png", "--tile", "32", "--engine", "torch", name="--tile 32")
    assert "--engine ort" in line
    done("export", "photo.darsr")
    line = refused("infer", "photo.png", "--tile", "32", "--model", "photo.onnx", name="--tile 32")
    assert "ReduceMean over the whole picture" in line and "--split" in line


@pytest.mark.parametrize("engine", ["ort", "torch"])
def test_threads_reach_the_engine(desk, engine, monkeypatch):
    done("infer", "photo.png", "-o", "exported.png")
    module, name = (bundle_module, "open_session") if engine == "ort" else (torch, "set_num_threads")
    asked, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *values: asked.append(values[-1]) or original(*values))
    bundle_module._kept.cache_clear()
    done("infer", "photo.png", "--engine", engine, "--threads", "1", "-o", "one.png")
    assert asked and set(asked) == {1}
