"""A runtime bundle in TensorRT: built once, other weights bound; tiles equal the whole. Built for real with TensorRT for RTX."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import shape_inference

pytest.importorskip("torch", reason="the bundles of these tests are exported (extras train and export)")

from darsr_deploy.bundle.adapter_inputs import bind_adapter
from darsr_deploy.bundle.graphs import GRAPHS
from darsr_deploy.bundle.manifest import Manifest
from darsr_deploy.bundle.numpy_check import corrected, filtered, small_picture
from darsr_deploy.bundle.ort_bundle import Bundle
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.errors import DarsrError, OutOfMemory
from darsr_deploy.trt.bundle import TrtBundle, input_sizes
from darsr_deploy.trt.cache import EngineCache
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.engine_file import read_facts
from darsr_deploy.trt.library import FAMILIES, import_library, make_logger
from darsr_deploy.trt.open_bundle import close_bundles, open_in_tensorrt
from darsr_deploy.trt.shapes import Shapes
from export.artefacts.build_engine import BuildOptions, build_engine
from export.artefacts.builder import Builder
from export.samples import natural_noise
from tests.deploy.bundle.test_bundle import KINDS, _folders, adapter, made  # noqa: F401, fixtures
from tests.support.fake_cuda import FakeDriver
from tests.support.gpu import LIBRARIES, image, install

pytestmark = pytest.mark.usefixtures("built_once")
SHAPES = Shapes((3, 3), (24, 32), (64, 64))


@pytest.fixture(params=[LIBRARIES[0], LIBRARIES[3]], ids=lambda p: p[0])
def machine(request, monkeypatch, tmp_path):
    """A GPU with either family; whatever was reserved on it must have been given back at the end."""
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    machine = install(monkeypatch, *request.param)
    yield machine
    close_bundles()
    assert machine.driver.left_over() == {}


def library_of(machine):
    return import_library(FAMILIES[machine.family])


def opened(machine, folder: Path, shapes: Shapes = SHAPES, **options: object) -> TrtBundle:
    """All graphs of a bundle, built and opened."""
    library = library_of(machine)
    bundle = TrtBundle(folder, library, **options)
    for graph in GRAPHS:
        onnx_bytes, spec = bundle.manifest.read(folder, f"{graph}.onnx"), bundle.manifest.spec
        data, facts = build_engine(onnx_bytes, spec, library, BuildOptions(shapes), graph, graph=graph)
        bundle.open(graph, data, facts)
    return bundle


@pytest.fixture
def open_file(machine, made, tmp_path):
    """Opens an adapter as ``darsr infer`` does: from its file, with the engines of the cache; told lines are kept."""
    said: list[str] = []

    def open_adapter(mine, folder: Path | None = None):
        path = tmp_path / f"{len(list(tmp_path.glob('*.darsr')))}.darsr"
        mine.save(path)
        cache = EngineCache(tmp_path / "engines", said.append)
        return open_in_tensorrt(folder or made(), path, library_of(machine), cache, said.append, Builder())

    open_adapter.said = said
    return open_adapter


# ---- the runtime, on a fake GPU


def test_every_adapter_gives_what_onnx_runtime_gives(machine, made):
    """One after the other and in turns; whole, replayed, at several sizes; at both scales."""
    for scale in (2, 4):
        folder = made(scale)
        reference = Bundle(folder)
        with opened(machine, folder) as bundle:
            engines = [(bundle.engine(mine), reference.engine(mine)) for mine in _adapters(scale)]
            for seed, size in enumerate([(24, 32), (24, 32), (24, 32), (3, 3), (17, 64)]):
                lr = image(*size, seed)
                for engine, expected in engines:
                    assert np.abs(engine.run(lr) - expected.run(lr)).max() < 2e-6
            engine, expected = engines[0]
            both = image(12, 14, n=2)
            assert np.abs(engine.run(both) - expected.run(both)).max() < 2e-6
            assert (engine.name, engine.provider, engine.spec.scale) == (machine.family, "cuda:0", scale)
            for engine, _ in engines:
                engine.__exit__()


def _adapters(scale: int):
    return [adapter(kind, scale, rounds, seed) for seed, (kind, rounds) in enumerate(KINDS)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(st.sampled_from(KINDS), st.integers(3, 80), st.integers(3, 80), st.integers(16, 30))
def test_tiles_give_the_whole_picture(machine, made, case, height, width, tile):
    """Images larger than the engines take too: compared with the whole picture in ONNX Runtime."""
    mine, lr = adapter(case[0], 2, case[1]), natural_noise(height, width)
    with opened(machine, made()) as bundle, bundle.engine(mine) as engine:
        tiled = TiledEngine(engine, tile, lambda line: None)
        assert np.abs(tiled.run(lr) - Bundle(made()).engine(mine).run(lr)).max() < 1e-5


def test_what_the_engines_cannot_hold_becomes_tiles(machine, made):
    said: list[str] = []
    lr, mine = natural_noise(90, 70), adapter()
    expected = Bundle(made()).engine(mine).run(lr)
    with opened(machine, made()) as bundle, bundle.engine(mine) as engine:
        assert engine.locality.most == 64 and engine.locality.halo == 10
        assert np.abs(TiledEngine(engine, None, said.append).run(lr) - expected).max() < 1e-5
        assert said == []  # nobody asked for a size
        assert np.abs(TiledEngine(engine, 60, said.append).run(lr) - expected).max() < 1e-5
        assert said == ["the engine takes 64 pixels at a time: tiles of 40 instead of 60"]
        with pytest.raises(DarsrError, match=r"sizes 3x3,24x32,64x64 .* has 90x70; leave out --tile 0"):
            TiledEngine(engine, 0).run(lr)
        engine.locality = replace(engine.locality, most=30)
        with pytest.raises(DarsrError, match="takes 30 pixels at a time, too few for tiles"):
            TiledEngine(engine).run(lr)


def test_little_memory_on_the_device_means_small_tiles(machine, made):
    """As the free memory says; and where it says too much, by halving, with all of the larger tile's memory given back."""
    said: list[str] = []
    lr, mine = natural_noise(64, 64), adapter()
    expected = Bundle(made()).engine(mine).run(lr)
    with opened(machine, made()) as bundle, bundle.engine(mine) as engine:
        held = sum(len(block) for block in machine.driver.blocks.values())
        assert engine.free_memory() <= machine.driver.memory
        machine.driver.memory = held + 2_000_000
        assert engine.free_memory() <= 2_000_000 + held
        tiled = TiledEngine(engine, None, said.append)
        assert 0 < tiled._choose(64, 64) < 64
        machine.driver.memory = held + 1_000_000
        with pytest.raises(OutOfMemory, match="out of memory while reserving"):
            engine.run(lr)
        assert np.abs(TiledEngine(engine, 40, said.append).run(lr) - expected).max() < 1e-5
        assert said == ["out of memory with 40 pixels at a time; going on with tiles of 20"]


def test_weights_are_uploaded_once_for_each_adapter(machine, made, monkeypatch):
    copied: Counter[int] = Counter()
    copy = type(machine.driver).cuMemcpyHtoDAsync_v2
    with opened(machine, made()) as bundle:
        driver = machine.driver
        monkeypatch.setattr(
            bundle.device._library, "cuMemcpyHtoDAsync_v2", _counted(driver, copy, copied), raising=True
        )
        with bundle.engine(adapter(rounds=1)) as engine:
            uploads = copied.total()
            for seed in range(4):
                engine.run(image(8, 8, seed))
            assert copied.total() == uploads + 4 and set(copied) >= {4 * 3 * 64}
            launched = driver.launches
    assert launched == (3 if machine.family == "trt" else 0)  # RTX captures itself; the first run is never replayed


def _counted(driver, copy, copied):
    def counted(to, source, size, stream):
        copied[int(getattr(size, "value", size))] += 1
        return copy(driver, to, source, size, stream)

    return counted


def test_two_threads_with_two_adapters(machine, made):
    """A video's next adapter is opened while frames flow with the last."""
    results: dict[int, np.ndarray] = {}
    reference, lr = Bundle(made()), image(20, 20)
    adapters = {
        seed: adapter(seed=seed) for seed in (1, 2)
    }  # here: the seed that they are drawn with is one for all threads
    with opened(machine, made()) as bundle:

        def work(seed: int) -> None:
            with bundle.engine(adapters[seed]) as engine:
                for _ in range(4):
                    results[seed] = engine.run(lr)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in adapters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed in adapters:
        assert np.abs(results[seed] - reference.engine(adapters[seed]).run(lr)).max() < 2e-6


def test_what_is_bound_is_compared_every_time(machine, made):
    """A runtime that computes with other weights than the file's, or that lost some on the way, does not run the adapter."""
    with opened(machine, made()) as bundle:
        bundle.engine(adapter()).__exit__()
        machine.trt.error = 1e-3
        for mine in (adapter(), adapter("global")):
            with pytest.raises(DarsrError, match=r"a\.darsr: its correction is not what was computed .*60\.\d dB"):
                bundle.engine(mine, "a.darsr")
        machine.trt.error = 0.0
        bundle.engine(adapter()).__exit__()
        with pytest.MonkeyPatch.context() as patch:
            download = machine.driver.cuMemcpyDtoHAsync_v2

            def damaged(to, source, size, stream):
                status = download(to, source, size, stream)
                machine.driver.streams[stream].append(lambda: machine.driver.view(to, 1, machine.driver.pages).fill(7))
                return status

            patch.setattr(bundle.device._library, "cuMemcpyDtoHAsync_v2", damaged)
            with pytest.raises(DarsrError, match="its weights on the device are not those of the file"):
                bundle.engine(adapter(), "a.darsr")


def test_the_reference_is_the_correction(made):
    """NumPy against the graph in ONNX Runtime; an order of weights that is another is told apart."""
    manifest, lr = Manifest.load(made()), small_picture()
    session = Bundle(made()).session("correction", None)
    fitted = bind_adapter(adapter(), manifest, "b", "a")
    got = session.run(None, {"lr": lr, **fitted.arrays})[0]
    assert np.abs(got - corrected(lr, fitted.arrays)).max() < 1e-5
    swapped = {**fitted.arrays, "stages.0.first.weight": fitted.arrays["stages.0.second.weight"]}
    assert np.abs(corrected(lr, swapped) - got).max() > 1e-3
    alike = bind_adapter(adapter("global"), manifest, "b", "a").arrays["coeff"]
    got = Bundle(made()).session("filter").run(None, {"lr": lr, "coeff": alike})[0]
    assert np.abs(got - filtered(lr, alike)).max() < 1e-6


# ---- the cache


def test_a_second_adapter_builds_nothing(machine, open_file, tmp_path):
    with open_file(adapter(seed=1)) as engine:
        engine.run(image(20, 24))
    assert machine.trt.builds == 5 and len(open_file.said) == 1 and "once for all adapters" in open_file.said[0]
    facts = [read_facts(path) for path in (tmp_path / "engines").glob("*.engine")]
    assert {f.graph for f in facts} == {"backbone", "correction", "correction_tile", "stats0", "stats1"}
    assert all(f.device_parity_psnr_db > 80 and f.cache_key for f in facts)
    contexts = machine.driver.contexts
    with open_file(adapter(seed=2)) as engine:
        lr = image(20, 24)
        assert np.abs(engine.run(lr) - Bundle(engine._bundle.folder).engine(adapter(seed=2)).run(lr)).max() < 2e-6
    assert (machine.trt.builds, machine.driver.contexts) == (5, contexts)
    close_bundles()  # another process
    with open_file(adapter(seed=3)):
        assert machine.trt.builds == 5
    with open_file(adapter(seed=3, rounds=1)):  # one graph more
        assert machine.trt.builds == 6
    assert len(open_file.said) == 2


def test_an_engine_alone_is_no_model(machine, open_file, tmp_path):
    open_file(adapter()).__exit__()
    (path,) = (p for p in (tmp_path / "engines").glob("*.engine") if read_facts(p).graph == "backbone")
    with pytest.raises(DarsrError, match=r"is the engine of one graph \(backbone\) of a runtime bundle"):
        TrtEngine(path)


def test_damaged_engines_are_built_again(machine, open_file, tmp_path):
    open_file(adapter()).__exit__()
    close_bundles()
    for path in (tmp_path / "engines").glob("*.engine"):
        path.write_bytes(path.read_bytes()[:-1])
    open_file(adapter()).__exit__()
    assert machine.trt.builds == 10 and sum("building it again" in line for line in open_file.said) == 5


def test_engines_that_compute_something_else_are_not_kept(machine, open_file, made, tmp_path):
    machine.trt.error = 5e-3
    with pytest.raises(DarsrError, match="not what was computed"):
        open_file(adapter())
    with pytest.raises(DarsrError, match=r"the engine differs from ONNX Runtime: 4\d\.\d dB, at least 80\.0 dB"):
        open_file(adapter("none"))  # nothing is bound there
    machine.trt.error, machine.trt.built_type = 0.0, "FLOAT"
    with pytest.raises(DarsrError, match="TensorRT built no layer in fp16"):
        open_file(adapter(), made(2, "fp16"))
    machine.trt.built_type = None
    assert not list((tmp_path / "engines").glob("*.engine"))
    open_file(adapter()).__exit__()
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 5


def test_another_gpu_has_engines_of_its_own(machine, open_file, monkeypatch, tmp_path):
    open_file(adapter("none")).__exit__()
    close_bundles()
    other = install(monkeypatch, machine.family, machine.trt.__version__, FakeDriver("Other", (8, 6)))
    open_file(adapter("none")).__exit__()
    close_bundles()
    assert other.driver.left_over() == {} and len(list((tmp_path / "engines").glob("*.engine"))) == 2


def test_engines_of_another_bundle_are_refused(machine, made):
    library = library_of(machine)
    with TrtBundle(made(2), library) as bundle:
        for graph, scale in (("backbone", 4), ("stats0", 2)):
            manifest = Manifest.load(made(scale))
            data = manifest.read(made(scale), f"{graph}.onnx")
            engine, facts = build_engine(data, manifest.spec, library, BuildOptions(SHAPES), "x", graph=graph)
            with pytest.raises(DarsrError, match="was built from another file than"):
                bundle.open("backbone", engine, facts)
        bundle.open("stats0", engine, facts)
        data = bundle.manifest.read(made(), "backbone.onnx")
        smaller = Shapes((3, 3), (8, 8), (16, 16))
        engine, facts = build_engine(data, manifest.spec, library, BuildOptions(smaller), "x", graph="backbone")
        with pytest.raises(DarsrError, match="is built for 3x3,8x8,16x16, the others for 3x3,24x32,64x64"):
            bundle.open("backbone", engine, facts)


WITHOUT = """
import sys
for name in ("torch", "onnx", "onnxscript", "onnxruntime", "skimage"):
    sys.modules[name] = None
import export.inference.session, export.artefacts.request, darsr_deploy.trt.bundle
"""


def test_nothing_but_tensorrt_is_needed():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, cwd=Path(__file__).parents[3])


# ---- for real, without a GPU


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    return import_library(FAMILIES["trt-rtx"])


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_graphs_of_a_bundle_are_built_for_real(rtx, made, precision):
    """Typed as the files say, for two GPUs in one engine; the weights are inputs of fixed shapes."""
    folder = made(2, precision)
    manifest = Manifest.load(folder)
    kind = {"fp32": "FLOAT", "fp16": "HALF"}[precision]
    for graph in GRAPHS:
        data = manifest.read(folder, f"{graph}.onnx")
        options = BuildOptions(SHAPES, ("sm_86", "sm_89"))
        engine, facts = build_engine(data, manifest.spec, rtx, options, graph, graph=graph)
        assert len(engine) > 10_000 and facts.typed and facts.graph == graph
        assert facts.onnx_sha256 == manifest.files[f"{graph}.onnx"] == hashlib.sha256(data).hexdigest()
        inferred = shape_inference.infer_shapes(onnx.load_from_string(data)).graph
        count = sum(node.op_type == "Conv" for node in inferred.node)
        found = {name: n for name, n in facts.layers.items() if name.startswith("CONVOLUTION")}
        assert found == ({f"CONVOLUTION {kind}": count} if count else {})
        network = _parsed(rtx, data)
        declared = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
        weights = {name: tuple(shape) for name, shape in manifest.weights.items() if name in declared}
        assert {name: declared[name] for name in weights} == weights
        assert declared["lr"] == (-1, 3, -1, -1)
        # exactly what the runtime asks of the built engine
        expected = input_sizes(manifest, graph, SHAPES)
        assert expected.keys() == declared.keys()
        for name, sizes in expected.items():
            assert all(d in (-1, s) for size in sizes for d, s in zip(declared[name], size, strict=True))
        types = {network.get_input(i).dtype for i in range(network.num_inputs)} | {network.get_output(0).dtype}
        assert types == {rtx.module.DataType.FLOAT} and network.num_outputs == 1


def _parsed(rtx, data: bytes):
    trt = rtx.module
    logger = make_logger(trt)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(data)
    return network


def test_each_adapter_needs_its_graphs(made):
    fitted = {case: bind_adapter(adapter(case[0], 2, case[1]), Manifest.load(made()), "b", "a") for case in KINDS}
    needed = {case: each.graphs + each.tile_graphs for case, each in fitted.items()}
    assert needed["none", 0] == ["backbone"] and needed["global", 1] == ["filter", "backbone", "backprojection"]
    assert {g for graphs in needed.values() for g in graphs} == set(GRAPHS)
