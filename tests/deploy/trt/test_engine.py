"""The TensorRT runtime through a fake of the driver and of the library that enforces what their documents ask for."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.errors import DarsrError, OutOfMemory
from darsr_deploy.trt import cuda as cuda_driver
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.library import FAMILIES, choose_family, import_library, make_logger

pytest.importorskip("torch", reason="the models of these tests are exported (extras train and export)")

from tests.support.fake_cuda import FakeDriver
from tests.support.fake_tensorrt import Misuse
from tests.support.gpu import DYNAMIC, LIBRARIES, STATIC, filters_file, image, install, model_file, uninstall

LOAD = cuda_driver.load_library  # the real one


@pytest.fixture(params=LIBRARIES, ids=lambda p: f"{p[0]} {p[1]}")
def machine(request, monkeypatch, tmp_path):
    """Each library on a GPU of its own; whatever was reserved on it must have been given back at the end."""
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    machine = install(monkeypatch, *request.param)
    yield machine
    assert machine.driver.left_over() == {}


@pytest.fixture
def model(tmp_path):
    return model_file(tmp_path / "model.onnx")


@pytest.mark.parametrize("shapes", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_the_same_picture_as_onnx_runtime(machine, model, shapes):
    """First run, replayed, and after another size in between where there is one."""
    sizes = [(24, 32)] * 3 + [(9, 17), (48, 64), (48, 64), (24, 32)] * (shapes is DYNAMIC)
    with TrtEngine(machine.build(model, shapes)) as engine, OrtEngine(model) as reference:
        for seed, size in enumerate(sizes):
            lr = image(*size, seed)
            np.testing.assert_array_equal(engine.run(lr), reference.run(lr))
        assert (engine.name, engine.provider, engine.spec.scale) == (machine.family, "cuda:0", 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(sizes=st.lists(st.tuples(st.integers(8, 48), st.integers(8, 64)), min_size=1, max_size=5))
def test_any_order_of_sizes(machine, model, sizes):
    with TrtEngine(machine.build(model)) as engine, OrtEngine(model) as reference:
        for seed, size in enumerate(sizes):
            lr = image(*size, seed)
            np.testing.assert_array_equal(engine.run(lr), reference.run(lr))


def test_a_batch_is_its_images(machine, model):
    lr = image(10, 12, n=3)
    with TrtEngine(machine.build(model)) as engine:
        np.testing.assert_array_equal(engine.run(lr), np.concatenate([engine.run(one[None]) for one in lr]))


def test_graphs(machine, model):
    """Enterprise: captured after the first run of a size and replayed; RTX captures itself."""
    with TrtEngine(machine.build(model)) as engine:
        for size in ((8, 8), (8, 8), (8, 8), (9, 8), (9, 8)):
            engine.run(image(*size))
        launched = machine.driver.launches
        assert launched == (3 if machine.family == "trt" else 0)
    with TrtEngine(machine.build(model), graphs=False) as engine:
        for _ in range(3):
            engine.run(image(8, 8))
    assert machine.driver.launches == launched


def test_what_cannot_be_captured_is_enqueued(machine, model):
    machine.driver.capturable = False
    lr = image(8, 8)
    with TrtEngine(machine.build(model)) as engine, OrtEngine(model) as reference:
        for _ in range(3):
            np.testing.assert_array_equal(engine.run(lr), reference.run(lr))
    assert machine.driver.launches == 0


def test_filters_of_one_image(machine, tmp_path):
    model = filters_file(tmp_path / "model.onnx")
    lr = image(24, 32)
    with TrtEngine(machine.build(model, DYNAMIC)) as engine, OrtEngine(model) as reference:
        for _ in range(2):
            np.testing.assert_array_equal(engine.run(lr), reference.run(lr))
        assert engine.facts.shapes == STATIC  # its own size, whatever was asked for
        with pytest.raises(DarsrError, match=r"is built for sizes 24x32 .* and this image has 24x31"):
            engine.run(image(24, 31))
        with pytest.raises(DarsrError, match="filters of one image"):
            engine.run(image(24, 32, n=2))


def test_times_on_the_device(machine, model):
    with TrtEngine(machine.build(model)) as engine:
        parts = engine.time(image(8, 8))
        assert list(parts) == ["upload", "compute", "download"] and all(v > 0 for v in parts.values())


def test_sizes_outside_the_profile_are_refused_before_the_library_sees_them(machine, model):
    with TrtEngine(machine.build(model)) as engine:
        for size in ((7, 8), (8, 65), (49, 64)):
            with pytest.raises(DarsrError, match=rf"sizes 8x8,24x32,48x64 .*this image has {size[0]}x{size[1]}"):
                engine.run(image(*size))
        with pytest.raises(DarsrError, match="float64"):
            engine.run(image(8, 8).astype(np.float64))
        engine.run(image(8, 8))


def test_tiles_of_a_model_that_says_what_they_need(machine, tmp_path):
    """As in ONNX Runtime: a model without averages inside. An engine of one size takes images of that size."""
    model = model_file(tmp_path / "model.onnx", halo=2, bytes_per_lr_pixel=100)
    lr, said = image(70, 90), []
    with TrtEngine(machine.build(model)) as engine, OrtEngine(model) as reference:
        assert engine.locality.most == 48
        for tile in (None, 20, 60):
            np.testing.assert_allclose(TiledEngine(engine, tile, said.append).run(lr), reference.run(lr), atol=1e-6)
        assert said == ["the engine takes 48 pixels at a time: tiles of 44 instead of 60"]
    with TrtEngine(machine.build(model, STATIC)) as engine, pytest.raises(DarsrError, match=r"of one size .*bundle"):
        TiledEngine(engine, 20)


def test_too_little_memory_is_said_and_a_smaller_image_still_runs(machine, model):
    machine.driver.memory = 60_000
    with TrtEngine(machine.build(model)) as engine, OrtEngine(model) as reference:
        with pytest.raises(OutOfMemory, match="out of memory while reserving"):
            engine.run(image(48, 64))
        np.testing.assert_array_equal(engine.run(image(8, 8)), reference.run(image(8, 8)))


def test_another_thread_may_use_it(machine, model):
    results = []
    with TrtEngine(machine.build(model)) as engine, OrtEngine(model) as reference:
        engine.run(image(8, 8, 1))
        thread = threading.Thread(target=lambda: results.append(engine.run(image(8, 8, 2))))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(results[0], reference.run(image(8, 8, 2)))


def test_an_engine_of_another_version(machine, model):
    with pytest.raises(DarsrError, match=r"was built by .* 9\.9, and .* is installed; build it again"):
        TrtEngine(machine.build(model, tensorrt="9.9"))


def test_an_engine_of_another_device(machine, model, monkeypatch):
    path = machine.build(model, **({"targets": ("sm_86",)} if machine.family == "trt-rtx" else {"gpu": "Other"}))
    expected = (
        r"was built for sm_86, and this is Fake RTX \(sm_89\)" if machine.family == "trt-rtx" else "was built on Other"
    )
    with pytest.raises(DarsrError, match=expected):
        TrtEngine(path)


def test_a_sidecar_that_lies_about_the_device_is_found_out_by_the_library(machine, model, monkeypatch):
    """Built for sm_86, told to be for this GPU: the library's answer becomes one line, not a crash."""
    driver = FakeDriver(target=(8, 6))
    path = install(monkeypatch, machine.family, machine.trt.__version__, driver).build(model, target="sm_89")
    here = install(monkeypatch, machine.family, machine.trt.__version__)
    if machine.family == "trt-rtx":  # portable unless targets were asked for
        TrtEngine(path).__exit__()
    else:
        with pytest.raises(DarsrError, match=r"cannot load it \(The engine plan file is not compatible"):
            TrtEngine(path)
    assert here.driver.left_over() == {}


@pytest.mark.parametrize("wrong", ["name", "type", "profile"])
def test_an_engine_with_another_contract(machine, model, wrong, monkeypatch):
    path = machine.build(model)
    engine = machine.trt.classes["ICudaEngine"]
    if wrong == "name":
        monkeypatch.setattr(engine, "get_tensor_name", lambda self, i: ["lr", "output"][i])
    elif wrong == "type":
        monkeypatch.setattr(engine, "get_tensor_dtype", lambda self, name: machine.trt.DataType.HALF)
    else:
        path = machine.build(model, shapes=DYNAMIC)
        monkeypatch.setattr(engine, "get_tensor_profile_shape", lambda self, name, i: [(1, 3, 8, 8)] * 3)
    with pytest.raises(DarsrError, match=r"inputs and outputs|is not a float32|is built for lr"):
        TrtEngine(path)


def test_engines_of_others_need_trust(machine, model):
    path = machine.build(model, trusted=False)
    with pytest.raises(DarsrError, match=r"was not built on this machine, and an engine is code .* give --trust"):
        TrtEngine(path)
    with TrtEngine(path, trust=True) as engine:
        engine.run(image(8, 8))


def test_without_a_driver_or_a_device(machine, model, monkeypatch):
    path = machine.build(model)
    machine.driver.count = 0
    with pytest.raises(DarsrError, match="device 0 was asked for, the driver sees 0"):
        TrtEngine(path)
    monkeypatch.setattr(cuda_driver, "load_library", LOAD)
    monkeypatch.setattr(cuda_driver, "LIBRARIES", ("libno-such-driver.so",))
    with pytest.raises(DarsrError, match=r"^GPU: no NVIDIA driver .*; .*install it .*; --engine ort works here$"):
        TrtEngine(path)


def test_without_a_library(monkeypatch):
    uninstall(monkeypatch)
    with pytest.raises(
        DarsrError, match=r'^TensorRT: is not installed; install it: .*pip install "tensorrt>=[\d.]+" .*JetPack'
    ):
        import_library(FAMILIES["trt"])
    with pytest.raises(DarsrError, match=r'pip install "tensorrt-rtx.*"; --engine ort works here$'):
        import_library(FAMILIES["trt-rtx"])


@pytest.mark.parametrize("family", ["trt", "trt-rtx"])
def test_which_family_trt_means(monkeypatch, family):
    """The enterprise one if present, else RTX; with neither the line is about the enterprise one."""
    install(monkeypatch, *next(p for p in LIBRARIES if p[0] == family))
    assert choose_family("trt").name == family
    uninstall(monkeypatch)
    assert choose_family("trt-rtx").name == "trt-rtx"


def test_a_library_that_is_a_stub_is_one_line(monkeypatch):
    machine = install(monkeypatch, "trt", "10.3.0.26")
    del machine.trt.__version__
    with pytest.raises(DarsrError, match="TensorRT: is installed, but cannot be loaded"):
        import_library(FAMILIES["trt"])


def test_what_rtx_compiled_is_kept(monkeypatch, tmp_path):
    """For one engine on one GPU, and only if this machine wrote it."""
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    machine = install(monkeypatch, *LIBRARIES[3])
    path = machine.build(model_file(tmp_path / "model.onnx"))

    def start() -> int:
        before = machine.trt.compiled
        with TrtEngine(path, jit_folder=tmp_path) as engine:
            engine.run(image(8, 8))
        return machine.trt.compiled - before

    assert [start(), start()] == [1, 0]
    (kept,) = tmp_path.glob("*.jit")
    kept.write_bytes(kept.read_bytes() + b" and some of another's")
    assert [start(), start()] == [1, 0]
    machine.driver.name = "Another"
    assert start() == 1
    assert machine.driver.left_over() == {}


# --- the fake itself: it refuses what it is there to refuse


@pytest.fixture
def context(machine, model):
    """A context as the runtime makes it, its buffers and its stream."""
    trt = machine.trt
    engine_file = machine.build(model)
    with Device() as device:
        runtime = trt.Runtime(make_logger(trt))
        engine = runtime.deserialize_cuda_engine(engine_file.read_bytes())
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if machine.family == "trt-rtx":
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            strategy = config
        held = [cuda_driver.DeviceMemory(device) for _ in range(3)]
        for memory in held:
            memory.reserve(10**6)
        stream = cuda_driver.Stream(device)
        made, owners = engine.create_execution_context(strategy), [engine, runtime]
        del engine, runtime
        yield made, held, stream, owners, machine.driver
        stream.close()
        for memory in held:
            memory.free()


@pytest.mark.parametrize("left_out", ["shape", "lr", "sr", "size", "scratch", "stream", "engine", "order", "memory"])
def test_the_fake_enforces_what_the_documents_ask_for(context, left_out):
    """Everything but one: each omission is refused."""
    made, (lr, sr, scratch), stream, owners, driver = context
    with pytest.raises(Misuse):
        if left_out != "shape":
            assert made.set_input_shape("lr", (1, 3, 8, 8))
        if left_out != "lr":
            made.set_tensor_address("lr", lr.address)
        if left_out != "sr":
            made.set_tensor_address("sr", sr.address)
        if left_out != "size":
            made.update_device_memory_size_for_shapes()
        if left_out != "scratch":
            made.set_device_memory(scratch.address, scratch.size)
        if left_out == "order":  # the partition of the memory belongs to the shape before
            made.set_input_shape("lr", (1, 3, 9, 8))
        handle = stream.handle
        if left_out == "stream":
            handle = 0
        if left_out == "engine":
            owners.clear()
        try:
            made.execute_async_v3(handle)
        except AssertionError as error:
            raise Misuse(str(error)) from error
        if left_out == "memory":
            sr.free()
            try:
                driver.streams[handle].pop()()
            except AssertionError as error:
                raise Misuse(str(error)) from error
