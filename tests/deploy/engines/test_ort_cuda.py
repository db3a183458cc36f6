"""ONNX Runtime on CUDA, without a GPU: what the files ask of it, and that it never falls back without a word."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, inliner, shape_inference

from darsr_deploy.engines import ort as ort_engine
from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec
from tests.support.gpu import image, model_file

CUDA = "CUDAExecutionProvider"
FILTERS = {"source_height": 8, "source_width": 8}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_value_of_a_file_is_a_shape(tmp_path, precision):
    """ONNX Runtime puts arithmetic of shapes on the CPU, which would then count as a fallback and be refused."""
    model = onnx.load(model_file(tmp_path / "a.onnx", precision, form="filters", **FILTERS))
    graph = shape_inference.infer_shapes(inliner.inline_local_functions(model)).graph
    constants = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    computed = [v for v in graph.value_info if v.name not in constants]
    assert len(computed) > 20
    assert {v.type.tensor_type.elem_type for v in computed} <= {TensorProto.FLOAT, TensorProto.FLOAT16}


class Session:
    """What a session is asked for, and a provider that fails on local functions."""

    def __init__(self, model: str | bytes, options: onnxruntime.SessionOptions, providers: list[str]) -> None:
        self.fallback = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        self.model, self.providers = model, providers
        if providers == [CUDA] and isinstance(model, str):
            raise RuntimeError("cannot inline darsr::CorrectionFilter")

    def get_providers(self) -> list[str]:
        return self.providers

    def get_modelmeta(self):
        spec = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"]).get_modelmeta()
        return spec


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", _real := onnxruntime.InferenceSession)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    opened: list[Session] = []

    def open_session(model, options=None, providers=()):
        if list(providers) != [CUDA]:
            return _real(model, options, providers=list(providers))
        opened.append(Session(model, options, list(providers)))
        return opened[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return opened


def test_the_function_is_inlined_for_a_provider_that_fails_on_it(cuda, tmp_path):
    model = model_file(tmp_path / "a.onnx", form="filters", **FILTERS)
    engine = OrtEngine(model, "cuda", coefficients=image(8, 8))
    (session,) = cuda
    assert session.fallback == "1"
    assert not onnx.load_from_string(session.model).functions
    assert engine.provider == CUDA and engine.spec == ModelSpec(
        2, form="filters", backbone="test", parity_psnr_db=99.0, macs_per_lr_pixel=1, **FILTERS
    )


def test_a_failure_without_a_function_stays_one(cuda, tmp_path):
    with pytest.raises(DarsrError, match="cannot inline"):
        OrtEngine(model_file(tmp_path / "a.onnx"), "cuda")


def test_another_provider_in_its_place_is_an_error(cuda, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(DarsrError, match=f"could not start {CUDA}"):
        OrtEngine(model_file(tmp_path / "a.onnx", form="filters", **FILTERS), "cuda", coefficients=image(8, 8))


def test_without_onnx_there_is_nothing_to_inline_with(tmp_path, monkeypatch):
    model = model_file(tmp_path / "a.onnx", form="filters", **FILTERS)
    assert ort_engine._inline_functions(model) is not None
    monkeypatch.setattr(ort_engine.importlib.util, "find_spec", lambda name: None)
    assert ort_engine._inline_functions(model) is None
