"""Engines of a runtime bundle, ahead of time: used where they fit, compared once, and why not said where not."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("torch", reason="the bundles of these tests are exported (extras train and export)")

from darsr_deploy.bundle.graphs import GRAPHS, TILE_GRAPHS
from darsr_deploy.bundle.manifest import MANIFEST, Manifest
from darsr_deploy.bundle.ort_bundle import Bundle
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.opening import engine_of_bundle
from darsr_deploy.trt import cache as engine_cache
from darsr_deploy.trt import parity as bundle_check
from darsr_deploy.trt.cache import EngineCache
from darsr_deploy.trt.engine_file import read_facts, sidecar_path, write_engine
from darsr_deploy.trt.library import FAMILIES, import_library
from darsr_deploy.trt.open_bundle import close_bundles, open_in_tensorrt, own_engine
from darsr_deploy.trt.shapes import Shapes
from darsr_deploy.trt.trust import trust, trust_list
from export.artefacts.build_engine import BuildOptions, build_engine
from export.artefacts.bundle_engines import export_engines
from tests.deploy.bundle.test_bundle import KINDS, _desk, _folders, adapter, desk, made  # noqa: F401, fixtures
from tests.deploy.trt.test_bundle import library_of, machine  # noqa: F401, fixture
from tests.support.built_bundles import SHAPES, _built_bundles, comparisons, contents, infer, ready, small_pictures  # noqa: F401, fixtures
from tests.support.commands import names, told
from tests.support.fake_cuda import FakeDriver
from tests.support.gpu import LIBRARIES, image, install

pytestmark = pytest.mark.usefixtures("built_once", "small_pictures")


# ---- used where they fit


def test_every_adapter_runs_in_them_and_nothing_is_built(ready, infer, machine, tmp_path, comparisons):
    folder = ready()
    before, reference = contents(folder), Bundle(folder)
    for seed, (kind, rounds) in enumerate(KINDS):
        mine = adapter(kind, 2, rounds, seed)
        with infer(folder, mine) as engine:
            lr = image(50, 61, seed)
            expected = reference.engine(mine).run(lr)
            assert np.abs(engine.run(lr) - expected).max() < 2e-6
            assert np.abs(TiledEngine(engine, 32).run(lr) - expected).max() < 1e-5
            assert engine.shapes == SHAPES
    assert infer.said == [] and machine.trt.builds == 0
    assert contents(folder) == before and not list((tmp_path / "cache").rglob("*.engine"))
    # those of the bundle's own adapter (network, back-projection) were compared when they were built
    assert comparisons == ["global"]
    close_bundles()  # another process
    infer(folder, adapter("global", 2, 1)).__exit__()
    assert comparisons == ["global"]


def test_what_the_export_says_of_them(ready, machine, made, tmp_path):
    folder = ready()
    assert (folder / MANIFEST).read_bytes() == (made() / MANIFEST).read_bytes() and ready.said == []
    for graph in GRAPHS:
        facts = read_facts(own_engine(folder, graph))
        assert facts.graph == graph and facts.onnx_sha256 == Manifest.load(folder).files[f"{graph}.onnx"]
        assert (facts.device_parity_psnr_db is None) == (graph == "filter")
    assert names(folder) == names(made()) | {f"{graph}.engine{tail}" for graph in GRAPHS for tail in ("", ".json")}


def test_without_a_gpu_they_are_compared_at_their_first_run(made, monkeypatch, tmp_path, comparisons):
    """Built where there is none, as in a workshop; then on the device, twice."""
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "cache"))
    workshop = install(monkeypatch, *LIBRARIES[3], FakeDriver(count=0))
    folder = Path(shutil.copytree(made(), tmp_path / "b"))
    library, options = import_library(FAMILIES["trt-rtx"]), BuildOptions(SHAPES, ("sm_89",))
    with told() as said:
        export_engines(folder, None, library, options, lambda path: path)
    assert len(said) == 1 and "engines built, not run yet" in said[0] and workshop.trt.builds == len(GRAPHS)
    assert read_facts(own_engine(folder, "backbone")).device_parity_psnr_db is None
    device = install(monkeypatch, *LIBRARIES[3])
    adapter().save(tmp_path / "a.darsr")
    cache = EngineCache(tmp_path / "cache" / "engines")
    for _ in range(2):
        open_in_tensorrt(
            folder, tmp_path / "a.darsr", import_library(FAMILIES["trt-rtx"]), cache, said.append
        ).__exit__()
        close_bundles()
    assert comparisons == ["network"] and device.trt.builds == 0 and len(said) == 1
    assert device.driver.left_over() == {}


def test_where_nothing_can_be_noted_they_run_all_the_same(ready, infer, machine, comparisons, tmp_path):
    folder = ready()
    before = contents(folder)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()  # no folder can be made there
    for times in (1, 2):
        with infer(folder) as engine:
            engine.run(image(24, 32))
        close_bundles()
        assert len(comparisons) == times and "engines are compared at every start; set DARSR_CACHE" in infer.said[-1]
    assert machine.trt.builds == 0 and contents(folder) == before


def test_without_onnx_runtime_the_correction_is_compared_and_that_is_said_once(ready, infer, tmp_path, monkeypatch):
    folder = ready()
    shutil.rmtree(tmp_path / "cache")
    for module in (bundle_check, engine_cache):
        monkeypatch.setattr(module, "installed_runtimes", lambda: [])
    for _ in range(2):
        infer(folder).__exit__()
        close_bundles()
    assert len(infer.said) == 1 and infer.said[0].endswith(
        "only the correction was compared on this device (no ONNX Runtime)"
    )


def test_a_note_that_says_nothing_is_no_note(tmp_path, monkeypatch):
    said: list[str] = []
    engine_cache.record_verification(tmp_path, "a" * 64, "GPU", "sm_89", 97.0, said.append)
    assert engine_cache.is_verified(tmp_path, "a" * 64, "GPU", "sm_89") and said == []
    for other in (("b" * 64, "GPU", "sm_89"), ("a" * 64, "Other", "sm_89"), ("a" * 64, "GPU", "sm_86")):
        assert not engine_cache.is_verified(tmp_path, *other)
    (path,) = tmp_path.glob("*.compared")
    for damaged in (b"", b"[]", b'{"sha256": "b"}', b"\xff"):
        path.write_bytes(damaged)
        assert not engine_cache.is_verified(tmp_path, "a" * 64, "GPU", "sm_89")
    engine_cache.record_verification(
        tmp_path, "a" * 64, "GPU", "sm_89", None, said.append
    )  # there was nothing to compare with
    assert not engine_cache.is_verified(tmp_path, "a" * 64, "GPU", "sm_89")  # and now there is
    monkeypatch.setattr(engine_cache, "installed_runtimes", lambda: [])
    assert engine_cache.is_verified(tmp_path, "a" * 64, "GPU", "sm_89")


def test_one_size_needs_no_graphs_of_tiles(ready, infer, machine, tmp_path):
    folder = ready(Shapes((24, 32), (24, 32), (24, 32)))
    assert not [graph for graph in TILE_GRAPHS if own_engine(folder, graph).exists()]
    mine = adapter(rounds=1)
    with infer(folder, mine) as engine:
        lr = image(24, 32)
        assert np.abs(engine.run(lr) - Bundle(folder).engine(mine).run(lr)).max() < 2e-6
        with pytest.raises(DarsrError, match=r"take sizes 24x32 .* has 24x33; build engines for other sizes"):
            TiledEngine(engine).run(image(24, 33))
        with pytest.raises(
            DarsrError, match=r"--tile 16: its engines take images of one size; build .* or use --engine ort"
        ):
            TiledEngine(engine, 16)
    assert infer.said == [] and machine.trt.builds == 0


def test_other_weights_than_bound_are_noticed_at_one_size_too(ready, infer, machine):
    folder = ready(Shapes((24, 32), (24, 32), (24, 32)))
    infer(folder).__exit__()
    machine.trt.error = 1e-3
    with pytest.raises(DarsrError, match="its correction is not what was computed"):
        infer(folder, adapter(seed=9))
    machine.trt.error = 0.0


def test_without_onnx_runtime_a_bundle_runs_in_the_engines_that_it_holds(ready, made, machine, monkeypatch):
    folder = ready()
    assert engine_of_bundle(folder) == "ort" and engine_of_bundle(folder, "trt-rtx") == "trt-rtx"
    monkeypatch.setattr("darsr_deploy.engines.ort.installed_runtimes", lambda: [])
    (folder / "another.engine").touch()  # of no graph
    assert engine_of_bundle(folder) == machine.family and engine_of_bundle(folder, "torch") == "torch"
    assert engine_of_bundle(made()) == "ort"


def test_bundles_stay_open_while_they_are_in_use(ready, infer, machine, made, tmp_path):
    """From Python several may be open at once, and threads may open them."""
    folders = [ready(), ready(name="other.bundle")]
    lr, mine = image(24, 32), adapter("global")
    expected = Bundle(made()).engine(mine).run(lr)
    first, second = (infer(folder, mine) for folder in folders)
    for engine in (first, second, first):
        for _ in range(3):  # as TensorRT, with a captured graph
            assert np.abs(engine.run(lr) - expected).max() < 2e-6
    first.__exit__()
    first.__exit__()
    with pytest.raises(DarsrError, match=r"b\.bundle: this engine of it was closed; open it again"):
        first.run(lr)
    held = machine.driver.left_over()["contexts"]
    third = infer(ready(name="third.bundle"), mine)  # the first is closed for it, the second is in use
    assert machine.driver.left_over()["contexts"] == held
    assert np.abs(second.run(lr) - expected).max() < 2e-6
    close_bundles()
    assert machine.driver.left_over() == {}
    for engine in (second, third):
        engine.__exit__()
        with pytest.raises(DarsrError, match="closed"):
            engine.run(lr)
    found: list[np.ndarray] = []

    def work(folder: Path) -> None:
        with infer(folder, mine) as engine:
            found.append(engine.run(lr))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in 3 * folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(np.abs(each - expected).max() < 2e-6 for each in found)
    assert infer.said == [] and machine.trt.builds == 0


# ---- not used, and why


def _another_gpu(folder, monkeypatch, machine):
    now = install(monkeypatch, machine.family, machine.trt.__version__, FakeDriver("Fake Ada", (7, 5)))
    return now, "and this is Fake Ada (sm_75)"


def _another_version(folder, monkeypatch, machine):
    version = "1.8.0.1" if machine.family == "trt-rtx" else "10.4.0.1"
    return install(monkeypatch, machine.family, version), f"{machine.trt.__version__}, and {version} is installed"


def _another_family(folder, monkeypatch, machine):
    now = install(monkeypatch, *(LIBRARIES[0] if machine.family == "trt-rtx" else LIBRARIES[3]))
    return now, f"is an engine of {machine.family}, and {now.family} was asked for; use --engine {machine.family}"


def _not_of_this_machine(folder, monkeypatch, machine):
    trust_list().unlink()
    return machine, "was not built on this machine, and an engine is code that runs with your rights; give --trust"


def _another_bundle(folder, monkeypatch, machine):
    for graph in GRAPHS:
        for path in (own_engine(folder, graph), sidecar_path(own_engine(folder, graph))):
            path.write_bytes((folder / path.name.replace(graph, "correction")).read_bytes())
    return machine, "was built from another file than"


@pytest.mark.parametrize(
    "case", [_another_gpu, _another_version, _another_family, _not_of_this_machine, _another_bundle]
)
def test_engines_that_do_not_fit_are_said_in_one_line(case, ready, infer, machine, monkeypatch, made):
    folder, mine = ready(), adapter("global")
    now, why = case(folder, monkeypatch, machine)
    monkeypatch.setattr(machine, "family", now.family)
    with infer(folder, mine) as engine:
        lr = image(24, 32)
        assert np.abs(engine.run(lr) - Bundle(made()).engine(mine).run(lr)).max() < 2e-6
    assert infer.said[0].startswith(f"{folder}: its own engine of filter, backbone is not used (")
    assert why in infer.said[0] and "building the" in infer.said[1] and len(infer.said) == 2 and now.trt.builds == 2
    close_bundles()
    infer(folder, adapter("global", rounds=1)).__exit__()  # from the cache, and one graph more
    assert now.trt.builds == 3
    close_bundles()
    assert now.driver.left_over() == {}


def test_trust_loads_what_another_machine_built(ready, infer, machine):
    folder = ready()
    trust_list().unlink()
    infer(folder, trusted=True).__exit__()
    assert infer.said == [] and machine.trt.builds == 0
    infer(folder).__exit__()  # in the same process, and without
    assert machine.trt.builds == 6 and "--trust" in infer.said[0]


def test_one_damaged_engine_is_replaced_by_one_of_the_same_sizes(ready, infer, machine, tmp_path):
    folder = ready()
    own_engine(folder, "stats0").write_bytes(b"none")
    sidecar_path(own_engine(folder, "stats1")).unlink()
    with infer(folder) as engine:
        assert engine.shapes == SHAPES and machine.trt.builds == 2
    assert [line.split(" is not used")[0].split("engine of ")[1] for line in infer.said[:2]] == ["stats0", "stats1"]
    assert "is damaged" in infer.said[0] and "No such file" in infer.said[1] and "building" in infer.said[2]
    kept = {read_facts(path).graph for path in (tmp_path / "cache").rglob("*.engine")}
    assert kept == {"stats0", "stats1"}


def test_an_engine_that_computes_something_else_is_not_used(ready, infer, machine, tmp_path, monkeypatch):
    """Its sidecar says that it is of this graph, and the list that it was built here."""
    folder = ready()
    monkeypatch.setattr(engine_cache, "is_verified", lambda *_: False)  # as on another machine
    model = onnx.load(folder / "backbone.onnx")
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weights), weights.name))
    library, path = library_of(machine), own_engine(folder, "backbone")
    options = BuildOptions(SHAPES, ("sm_89",) if machine.family == "trt-rtx" else ())
    data, _ = build_engine(
        model.SerializeToString(), Manifest.load(folder).spec, library, options, "x", graph="backbone"
    )
    trust(write_engine(path, data, read_facts(path)).sha256)
    mine = adapter()
    machine.trt.builds = 0
    with infer(folder, mine) as engine:
        lr = image(24, 32)
        assert np.abs(engine.run(lr) - Bundle(folder).engine(mine).run(lr)).max() < 2e-6
    assert "its own engines are not used (on Fake RTX the engine differs from ONNX Runtime: " in infer.said[0]
    assert machine.trt.builds == 5 and len(list((tmp_path / "cache").rglob("*.engine"))) == 5
