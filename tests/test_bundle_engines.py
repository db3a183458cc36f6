"""Engines of a runtime bundle, ahead of time: built into it, used where they fit, compared once, and why not said where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("torch", reason="the bundles of these tests are exported (extras train and export)")

import darsr_deploy
from darsr_deploy import bundle_check, compared, device_check, trt_opening
from darsr_deploy.bundle import GRAPHS, MANIFEST, Bundle, Manifest
from darsr_deploy.engine_cache import EngineCache
from darsr_deploy.engine_file import read_facts, sidecar_path, write_engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.fitted import TILE_GRAPHS
from darsr_deploy.imaging import read_image
from darsr_deploy.opening import engine_of_bundle
from darsr_deploy.shapes import Shapes
from darsr_deploy.tiled import TiledEngine
from darsr_deploy.trt_library import FAMILIES, import_library
from darsr_deploy.trt_opening import close_bundles, own_engine, own_engines
from darsr_deploy.trust import trust, trust_list
from export import bundle_engines
from export.bundle_engines import export_engines, open_in_tensorrt
from export.to_tensorrt import BuildOptions, build_engine

from .commands import done, names, refused, strict_json
from .fake_cuda import FakeDriver
from .gpu import LIBRARIES, STATIC, image, install, model_file
from .test_bundle import KINDS, _desk, _folders, adapter, desk, made  # noqa: F401, fixtures
from .test_trt_bundle import library_of, machine  # noqa: F401, fixture

pytestmark = pytest.mark.usefixtures("built_once")
SHAPES = Shapes((3, 3), (24, 32), (64, 64))
ROOT = Path(__file__).parent.parent
ROW = {"model", "format", "precision", "form", "bytes", "sha256", "parity_psnr_db", "parity_floor_db", "tensorrt"}
ROW |= {"shapes", "targets", "gpu", "device_parity_psnr_db", "layers", "engines", "macs_per_lr_pixel"}


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Comparing takes most of the time: one picture, still of odd size and of several tiles. All sizes: test_trt_bundle."""
    monkeypatch.setattr(device_check, "_SIZES", ((26, 31),))


@pytest.fixture(scope="module")
def _built_bundles(tmp_path_factory):
    """Bundles with engines by family and sizes: what was said, and a folder with all that building them left."""
    return tmp_path_factory.mktemp("built"), {}


@pytest.fixture
def ready(machine, made, tmp_path, monkeypatch, _built_bundles):  # noqa: F811
    """Makes a bundle with engines for the GPU at hand: built and compared once, copied with this machine's lists after that."""
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "cache"))
    store, said = _built_bundles

    def make(shapes: Shapes = SHAPES, say=lambda _: None, name: str = "b.bundle") -> Path:
        key, target = (machine.family, shapes), tmp_path / name
        kept = store / f"{machine.family} {shapes}"
        if key not in said:
            lines: list[str] = []
            shutil.copytree(made(), kept / "bundle")
            targets = ("sm_86", "sm_89") if machine.family == "trt-rtx" else ()
            with monkeypatch.context() as patch:
                patch.setenv("DARSR_CACHE", str(kept / "cache"))
                patch.setenv("DARSR_STATE", str(kept / "state"))
                options = BuildOptions(shapes, targets)
                export_engines(kept / "bundle", None, library_of(machine), options, lambda path: path, lines.append)
            said[key] = lines
        for line in said[key]:
            say(line)
        shutil.copytree(kept / "bundle", target)
        for folder in ("cache", "state"):
            shutil.copytree(kept / folder, tmp_path / folder, dirs_exist_ok=True)
        machine.trt.builds = 0
        return target

    return make


@pytest.fixture
def infer(machine, tmp_path):  # noqa: F811
    """Opens an adapter in a bundle as ``darsr infer`` does; what was said is kept."""
    said: list[str] = []

    def open_adapter(folder: Path, mine=None, trusted: bool = False):
        path = tmp_path / f"{len(list(tmp_path.glob('*.darsr')))}.darsr"
        (mine or adapter(rounds=1)).save(path)
        cache = EngineCache(tmp_path / "cache" / "engines", said.append)
        return open_in_tensorrt(folder, path, library_of(machine), cache, said.append, None, trusted)

    open_adapter.said = said
    return open_adapter


@pytest.fixture
def comparisons(monkeypatch):
    """How often engines were compared with ONNX Runtime."""
    found: list[str] = []
    compare = trt_opening.bundle_parity

    def counted(engine, *rest):
        found.append(engine.fitted.kind)
        return compare(engine, *rest)

    monkeypatch.setattr(trt_opening, "bundle_parity", counted)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- used where they fit


def test_every_adapter_runs_in_them_and_nothing_is_built(ready, infer, machine, tmp_path, comparisons):  # noqa: F811
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


def test_what_the_export_says_of_them(ready, machine, made, tmp_path):  # noqa: F811
    said: list[str] = []
    folder = ready(say=said.append)
    assert (folder / MANIFEST).read_bytes() == (made() / MANIFEST).read_bytes() and said == []
    for graph in GRAPHS:
        facts = read_facts(own_engine(folder, graph))
        assert facts.graph == graph and facts.onnx_sha256 == Manifest.load(folder).files[f"{graph}.onnx"]
        assert (facts.device_parity_psnr_db is None) == (graph == "filter")
    assert names(folder) == names(made()) | {f"{graph}.engine{tail}" for graph in GRAPHS for tail in ("", ".json")}


def test_without_a_gpu_they_are_compared_at_their_first_run(made, monkeypatch, tmp_path, comparisons):  # noqa: F811
    """Built where there is none, as in a workshop; then on the device, twice."""
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "cache"))
    workshop = install(monkeypatch, *LIBRARIES[3], FakeDriver(count=0))
    folder, said = Path(shutil.copytree(made(), tmp_path / "b")), []
    library, options = import_library(FAMILIES["trt-rtx"]), BuildOptions(SHAPES, ("sm_89",))
    export_engines(folder, None, library, options, lambda path: path, said.append)
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


def test_where_nothing_can_be_noted_they_run_all_the_same(ready, infer, machine, comparisons, tmp_path):  # noqa: F811
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
    for module in (bundle_check, compared):
        monkeypatch.setattr(module, "installed_runtimes", lambda: [])
    for _ in range(2):
        infer(folder).__exit__()
        close_bundles()
    assert len(infer.said) == 1 and infer.said[0].endswith(
        "only the correction was compared on this device (no ONNX Runtime)"
    )


def test_a_note_that_says_nothing_is_no_note(tmp_path, monkeypatch):
    said: list[str] = []
    compared.note(tmp_path, "a" * 64, "GPU", "sm_89", 97.0, said.append)
    assert compared.known(tmp_path, "a" * 64, "GPU", "sm_89") and said == []
    for other in (("b" * 64, "GPU", "sm_89"), ("a" * 64, "Other", "sm_89"), ("a" * 64, "GPU", "sm_86")):
        assert not compared.known(tmp_path, *other)
    (path,) = tmp_path.glob("*.compared")
    for damaged in (b"", b"[]", b'{"sha256": "b"}', b"\xff"):
        path.write_bytes(damaged)
        assert not compared.known(tmp_path, "a" * 64, "GPU", "sm_89")
    compared.note(tmp_path, "a" * 64, "GPU", "sm_89", None, said.append)  # there was nothing to compare with
    assert not compared.known(tmp_path, "a" * 64, "GPU", "sm_89")  # and now there is
    monkeypatch.setattr(compared, "installed_runtimes", lambda: [])
    assert compared.known(tmp_path, "a" * 64, "GPU", "sm_89")


def test_one_size_needs_no_graphs_of_tiles(ready, infer, machine, tmp_path):  # noqa: F811
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


def test_other_weights_than_bound_are_noticed_at_one_size_too(ready, infer, machine):  # noqa: F811
    folder = ready(Shapes((24, 32), (24, 32), (24, 32)))
    infer(folder).__exit__()
    machine.trt.error = 1e-3
    with pytest.raises(DarsrError, match="its correction is not what was computed"):
        infer(folder, adapter(seed=9))
    machine.trt.error = 0.0


def test_without_onnx_runtime_a_bundle_runs_in_the_engines_that_it_holds(ready, made, machine, monkeypatch):  # noqa: F811
    folder = ready()
    assert engine_of_bundle(folder) == "ort" and engine_of_bundle(folder, "trt-rtx") == "trt-rtx"
    monkeypatch.setattr("darsr_deploy.ort_engine.installed_runtimes", lambda: [])
    (folder / "another.engine").touch()  # of no graph
    assert engine_of_bundle(folder) == machine.family and engine_of_bundle(folder, "torch") == "torch"
    assert engine_of_bundle(made()) == "ort"


def test_bundles_stay_open_while_they_are_in_use(ready, infer, machine, made, tmp_path):  # noqa: F811
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


def _another_gpu(folder, monkeypatch, machine):  # noqa: F811
    now = install(monkeypatch, machine.family, machine.trt.__version__, FakeDriver("Fake Ada", (7, 5)))
    return now, "and this is Fake Ada (sm_75)"


def _another_version(folder, monkeypatch, machine):  # noqa: F811
    version = "1.8.0.1" if machine.family == "trt-rtx" else "10.4.0.1"
    return install(monkeypatch, machine.family, version), f"{machine.trt.__version__}, and {version} is installed"


def _another_family(folder, monkeypatch, machine):  # noqa: F811
    now = install(monkeypatch, *(LIBRARIES[0] if machine.family == "trt-rtx" else LIBRARIES[3]))
    return now, f"is an engine of {machine.family}, and {now.family} was asked for; use --engine {machine.family}"


def _not_of_this_machine(folder, monkeypatch, machine):  # noqa: F811
    trust_list().unlink()
    return machine, "was not built on this machine, and an engine is code that runs with your rights; give --trust"


def _another_bundle(folder, monkeypatch, machine):  # noqa: F811
    for graph in GRAPHS:
        for path in (own_engine(folder, graph), sidecar_path(own_engine(folder, graph))):
            path.write_bytes((folder / path.name.replace(graph, "correction")).read_bytes())
    return machine, "was built from another file than"


@pytest.mark.parametrize(
    "case", [_another_gpu, _another_version, _another_family, _not_of_this_machine, _another_bundle]
)
def test_engines_that_do_not_fit_are_said_in_one_line(case, ready, infer, machine, monkeypatch, made):  # noqa: F811
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


def test_trust_loads_what_another_machine_built(ready, infer, machine):  # noqa: F811
    folder = ready()
    trust_list().unlink()
    infer(folder, trusted=True).__exit__()
    assert infer.said == [] and machine.trt.builds == 0
    infer(folder).__exit__()  # in the same process, and without
    assert machine.trt.builds == 6 and "--trust" in infer.said[0]


def test_one_damaged_engine_is_replaced_by_one_of_the_same_sizes(ready, infer, machine, tmp_path):  # noqa: F811
    folder = ready()
    own_engine(folder, "stats0").write_bytes(b"none")
    sidecar_path(own_engine(folder, "stats1")).unlink()
    with infer(folder) as engine:
        assert engine.shapes == SHAPES and machine.trt.builds == 2
    assert [line.split(" is not used")[0].split("engine of ")[1] for line in infer.said[:2]] == ["stats0", "stats1"]
    assert "is damaged" in infer.said[0] and "No such file" in infer.said[1] and "building" in infer.said[2]
    kept = {read_facts(path).graph for path in (tmp_path / "cache").rglob("*.engine")}
    assert kept == {"stats0", "stats1"}


def test_an_engine_that_computes_something_else_is_not_used(ready, infer, machine, tmp_path, monkeypatch):  # noqa: F811
    """Its sidecar says that it is of this graph, and the list that it was built here."""
    folder = ready()
    monkeypatch.setattr(compared, "known", lambda *_: False)  # as on another machine
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


# ---- written whole or not at all


def test_what_else_lies_in_a_bundle_stays_there(ready, machine, tmp_path):  # noqa: F811
    folder = ready()
    (folder / "notes").mkdir()
    (folder / "notes" / "camera.txt").write_text("the one at the door")
    library = library_of(machine)
    for out in (None, tmp_path / "copy.bundle"):
        shapes = Shapes((24, 32), (24, 32), (24, 32))
        target, _ = export_engines(folder, out, library, BuildOptions(shapes), lambda path: path, lambda _: None)
        assert (target / "notes" / "camera.txt").read_text() == "the one at the door"
        assert not list(target.glob("stats*.engine*")) and read_facts(own_engine(target, "backbone")).shapes == shapes


def test_a_read_only_bundle_gives_a_copy_that_can_be_written(ready, made, machine, monkeypatch, tmp_path):  # noqa: F811
    """While the engines are written too, and what is left of a failure could not be removed otherwise."""
    source, modes = Path(shutil.copytree(made(), tmp_path / "ro.bundle")), []

    def write(path: Path, *rest: object):  # whoever runs the tests may be root
        modes.append(path.parent.stat().st_mode & 0o700)
        return write_engine(path, *rest)

    monkeypatch.setattr(bundle_engines, "write_engine", write)
    source.chmod(0o555)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))
    export_engines(source, tmp_path / "copy", library_of(machine), options, lambda path: path, lambda _: None)
    source.chmod(0o755)
    assert modes == [0o700] * 4 == [0o700] * len(own_engines(tmp_path / "copy")) and not own_engines(source)


def test_places_that_cannot_be_replaced(ready, made, machine, monkeypatch, tmp_path):  # noqa: F811
    source, library = Path(shutil.copytree(made(), tmp_path / "b.bundle")), library_of(machine)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))

    def to(out: Path | None, folder: Path = source) -> Path:
        return export_engines(folder, out, library, options, lambda path: path, lambda _: None)[0]

    with pytest.raises(DarsrError, match=r"lies in .*b\.bundle, whose copy it is to be"):
        to(source / "inner.bundle")
    monkeypatch.chdir(source)
    with pytest.raises(DarsrError, match=r"^\.: is replaced as a whole, and this command runs in it"):
        to(None, Path())
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(DarsrError, match=r"b\.bundle: is read-only; choose another"):
        patch.setattr(os, "access", lambda path, mode: Path(path) != source)  # whoever runs the tests may be root
        to(None)
    assert machine.trt.builds == 0 and contents(source) == contents(made())


def test_a_link_to_a_bundle_stays_one(ready, made, machine, tmp_path):  # noqa: F811
    source, link = Path(shutil.copytree(made(), tmp_path / "b.bundle")), tmp_path / "link.bundle"
    link.symlink_to(source.name)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))
    export_engines(link, None, library_of(machine), options, lambda path: path, lambda _: None)
    assert link.is_symlink() and own_engines(source) and names(tmp_path) >= {"b.bundle", "link.bundle"}
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_failure_leaves_the_older_bundle(ready, machine, monkeypatch, tmp_path):  # noqa: F811
    folder = ready()
    before = contents(folder)
    library, options = library_of(machine), BuildOptions(SHAPES)

    def again(**changes: object) -> None:
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setattr(machine.trt, name, value)
            export_engines(folder, None, library, options, lambda path: path, lambda _: None)

    with pytest.raises(DarsrError, match=r"engine of backbone: TensorRT.* cannot build it"):
        again(refuse=True)
    with pytest.raises(DarsrError, match="is not what was computed"):
        again(error=1e-3)
    (folder / "stats0.onnx").write_bytes(b"none")
    with pytest.raises(DarsrError, match=r"stats0\.onnx: is not the file that bundle\.json lists"):
        again()
    (folder / "stats0.onnx").write_bytes(before["stats0.onnx"])
    assert contents(folder) == before and names(tmp_path) <= {"b.bundle", "cache", "state"}


# ---- as typed


def test_a_bundle_with_engines_as_typed(desk, monkeypatch, tmp_path):  # noqa: F811
    """Split and built in one go; another adapter runs in it; the engines of a bundle that is there; all refusals."""
    monkeypatch.setenv("DARSR_STATE", str(desk / "state"))
    machine = install(monkeypatch, *LIBRARIES[3])  # noqa: F811
    engine = ("--format", "trt-rtx", "--target", "sm_86,sm_89,sm_86")
    row = strict_json(done("export", "photo.darsr", "--split", *engine, "--json").stdout)
    assert row.keys() >= ROW and (row["model"], row["format"]) == ("photo.bundle", "trt-rtx")
    assert (row["targets"], row["shapes"]) == (["sm_86", "sm_89"], "3x3,480x640,1920x1920")
    assert row["bytes"] == sum(path.stat().st_size for path in Path("photo.bundle").iterdir())
    assert row["engines"].keys() == {*GRAPHS} and row["device_parity_psnr_db"] > 80 and row["parity_psnr_db"] > 80
    machine.trt.builds = 0
    line = ("infer", "other.png", "--model", "photo.bundle", "--engine")
    first = done(*line, "trt-rtx", "-o", "trt.png", "--json")
    assert strict_json(first.stdout)["engine"] == "trt-rtx" and first.stderr == "" and machine.trt.builds == 0
    done(*line, "ort", "-o", "ort.png")
    assert np.abs(read_image("trt.png").astype(int) - read_image("ort.png")).max() <= 1
    close_bundles()  # another process, on another machine
    monkeypatch.setenv("DARSR_STATE", str(desk / "elsewhere"))
    assert "--trust" in done(*line, "trt-rtx", "-o", "2.png").stderr and machine.trt.builds > 0
    assert done(*line, "trt-rtx", "--trust", "-o", "3.png").stderr == ""

    again = ("export", "photo.bundle", "--format", "trt-rtx")
    assert "--overwrite" in refused(*again, name="photo.bundle")
    row = strict_json(done(*again, "--shape", "24x32", "--overwrite", "--json").stdout)
    assert row.keys() >= ROW and (row["model"], row["shapes"]) == ("photo.bundle", "24x32") and row["targets"] == []
    assert "backbone.engine" in names(Path("photo.bundle")) and "stats0.engine" not in names(Path("photo.bundle"))
    done(*again, "--shape", "24x32", "-o", "copy.bundle")
    assert (Path("copy.bundle") / MANIFEST).read_bytes() == (Path("photo.bundle") / MANIFEST).read_bytes()
    assert "has its own precision" in refused(*again, "--precision", "fp16", name="photo.bundle")
    assert "has its own backbone" in refused(*again, "--backbone", "edge-x2", name="photo.bundle")
    assert "one adapter after another" in refused(*again, "--triton", "models", name="--triton")
    assert "bundles are fp32 or fp16" in refused(*again, "--calibration", ".", name="--calibration")
    assert "Orin is sm_87" in refused(*again, "--target", "sm_87", name="--target sm_87")
    assert "is no bundle" in refused("export", "state", "--format", "trt-rtx", name="state")
    Path("full").mkdir()
    Path("full/diary.txt").write_text("mine")
    assert "other things in it" in refused(*again, "-o", "full", "--overwrite", name="full")
    close_bundles()
    assert machine.driver.left_over() == {}

    other = install(monkeypatch, *LIBRARIES[1])  # enterprise TensorRT, for the GPU at hand
    row = strict_json(done("export", "photo.bundle", "--format", "trt", "--overwrite", "--json").stdout)
    assert (row["gpu"], row["targets"], row["format"]) == ("Fake RTX", [], "trt") and row["device_parity_psnr_db"] > 80
    other.trt.builds = 0
    done(*line, "trt", "-o", "4.png")
    assert other.trt.builds == 0 and (read_image("4.png") == read_image("trt.png")).all()
    close_bundles()
    assert other.driver.left_over() == {}


WITHOUT = """
import sys
for name in ("torch", "onnx", "onnxscript", "onnxruntime", "skimage"):
    sys.modules[name] = None
import cli
cli.app(["export", "b.bundle", "--format", "trt-rtx", "--target", "sm_86,sm_89", "--shapes", "3x3,24x32,64x64"])
"""


@pytest.mark.tensorrt
def test_for_real_without_a_gpu_torch_and_onnx(made, tmp_path):  # noqa: F811
    """TensorRT for RTX itself, as in continuous integration: a bundle that is there gains its engines."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    folder = Path(shutil.copytree(made(2, "fp16"), tmp_path / "b.bundle"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARSR_STATE": str(tmp_path / "state")}
    ran = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for graph in GRAPHS:
        facts = read_facts(own_engine(folder, graph))
        assert facts.targets == ("sm_86", "sm_89") and facts.bytes == own_engine(folder, graph).stat().st_size > 10_000
        assert facts.sha256 in (tmp_path / "state" / "trusted-engines").read_text()


# ---- from Python


@pytest.fixture
def python(monkeypatch, machine):  # noqa: F811
    """``darsr_deploy.open_engine`` as on a device: nothing of what exports can be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("export", "darsr_train")]:
        monkeypatch.setitem(sys.modules, name, None)
    return darsr_deploy.open_engine


def test_python_opens_a_bundle_in_its_own_engines(ready, machine, request, tmp_path):  # noqa: F811
    folder, lr, mine = ready(), image(50, 61), adapter("global", seed=4)
    mine.save(tmp_path / "mine.darsr")
    expected = Bundle(folder).engine(mine).run(lr)
    open_engine = request.getfixturevalue("python")
    for asked in (machine.family, "trt"):
        with open_engine(folder, adapter=tmp_path / "mine.darsr", engine=asked) as engine:
            assert (engine.name, engine.provider) == (machine.family, "cuda:0")
            assert np.abs(engine.run(lr) - expected).max() < 2e-6
    with open_engine(folder, engine=machine.family, tile=32) as engine:  # the adapter that it was exported from
        assert np.abs(engine.run(lr) - open_engine(folder, engine="ort").run(lr)).max() < 1e-5
    with open_engine(str(folder)) as engine:
        assert engine.name == "ort"
    assert machine.trt.builds == 0


def test_python_says_which_command_builds_what_is_missing(ready, made, infer, machine, request, tmp_path):  # noqa: F811
    bare, folder = Path(shutil.copytree(made(), tmp_path / "bare.bundle")), ready()
    infer(bare, adapter()).__exit__()  # darsr infer builds engines into the cache
    built = machine.trt.builds
    close_bundles()
    trust_list().rename(tmp_path / "list")
    open_engine = request.getfixturevalue("python")
    target = " --target sm_89" if machine.family == "trt-rtx" else ""
    line = f"build them: darsr export {folder} --format {machine.family}{target} --overwrite"
    with pytest.warns(RuntimeWarning, match="was not built on this machine"), pytest.raises(DarsrError) as error:
        open_engine(folder, engine=machine.family)
    assert str(error.value).endswith(line) and str(error.value).startswith(f"{folder}: there is no engine of ")
    with open_engine(folder, engine=machine.family, trust=True) as engine:
        engine.run(image(24, 32))
    (tmp_path / "list").rename(trust_list())
    adapter().save(tmp_path / "mine.darsr")
    with open_engine(bare, adapter=tmp_path / "mine.darsr", engine=machine.family) as engine:  # from the cache
        engine.run(image(24, 32))
    with pytest.raises(
        DarsrError, match=r"no engine of backprojection .* build them: .*bare\.bundle --format [a-z-]+"
    ) as error:
        open_engine(bare, engine=machine.family)
    assert "--overwrite" not in str(error.value) and machine.trt.builds == built


def test_an_engine_that_does_not_run_such_a_file(machine, python, tmp_path):  # noqa: F811
    model = model_file(tmp_path / "m.onnx")
    machine.build(model)
    for asked, file, why in (
        ("torch", "m.onnx", "engine torch: is not known; choose one of auto, ort, trt, trt-rtx"),
        ("trt", "m.onnx", r"m\.onnx: is no engine, .*; build it: darsr export .*m\.onnx --format trt"),
        ("ort", "m.engine", r"m\.engine: is an engine of TensorRT, and ort was asked for"),
    ):
        with pytest.raises(DarsrError, match=why):
            python(tmp_path / file, engine=asked)
    with python(tmp_path / "m.engine", engine="trt") as engine:
        assert engine.name == machine.family
    with pytest.raises(DarsrError, match="--tile 16"):
        python(machine.build(model, STATIC), tile=16)


IMPORTED = """
import sys
for name in ("export", "darsr_train", "torch", "onnx", "onnxruntime"):
    sys.modules[name] = None
import darsr_deploy.trt_opening, darsr_deploy.opening
"""


def test_the_device_needs_darsr_deploy_alone():
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, cwd=ROOT)
