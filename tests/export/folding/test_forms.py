"""Forms: equal to what they replace, at the cost they tell, bound to the image they were made from."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec, coefficients_path
from darsr_deploy.images.metrics import psnr
from darsr_train.networks.darm import filter_with_taps
from export.artefacts.model import export_onnx
from export.folding.forms import choose_form, take_form
from export.samples import Samples, natural_noise
from tests.export.artefacts.test_model import pipeline

pytestmark = pytest.mark.usefixtures("built_once")
PHOTO = natural_noise(70, 66, seed=5)
SAMPLES = Samples(PHOTO, "0" * 64, (PHOTO,), "the adapted image")


@pytest.fixture(params=["taps", "dictionary"])
def baked(request, tmp_path, built_once):
    (tmp_path / "baked").mkdir()
    model = tmp_path / "baked" / "m.onnx"
    return (
        pipeline(request.param),
        model,
        export_onnx(pipeline(request.param), model, ModelSpec(2, "filters"), None, SAMPLES),
    )


def test_filters_of_an_image_give_what_the_network_gives(baked):
    network, model, facts = baked
    assert facts["psnr_from_network_db"] > 100 and facts["coefficients"] == str(coefficients_path(model))
    with OrtEngine(model) as engine:
        got = engine.run(PHOTO)
        assert (engine.spec.source_height, engine.spec.source_width) == (70, 66)
    assert psnr(got, network(torch.from_numpy(PHOTO)).numpy(), peak=1.0) > 80
    coefficients = load_file(coefficients_path(model))["coeff"]
    assert coefficients.shape == (1, 13, 70, 66) and coefficients.dtype == np.float32
    corrected = filter_with_taps(torch.from_numpy(PHOTO), torch.from_numpy(coefficients))
    assert (corrected - network.correct(torch.from_numpy(PHOTO))).abs().max() < 1e-4


def test_filters_are_for_one_image(baked):
    with OrtEngine(baked[1]) as engine:
        for shape in ((70, 65), (66, 70)):
            with pytest.raises(
                DarsrError, match=f"filters of one image of 66x70 pixels, and this is 1 of {shape[1]}x{shape[0]}"
            ):
                engine.run(natural_noise(*shape))
        with pytest.raises(DarsrError, match="2 of 66x70"):
            engine.run(np.concatenate([PHOTO, PHOTO]))


def test_filters_need_their_own_coefficients(baked, tmp_path):
    model = shutil.copy(baked[1], tmp_path / "m.onnx")
    with pytest.raises(DarsrError, match=r"m\.coeff\.safetensors: cannot be read .*copy it from beside"):
        OrtEngine(model)
    export_onnx(
        pipeline(), tmp_path / "other.onnx", ModelSpec(2, "filters"), None, Samples(natural_noise(70, 66, seed=6))
    )
    shutil.copy(coefficients_path(tmp_path / "other.onnx"), coefficients_path(model))
    with pytest.raises(DarsrError, match=r"m\.coeff\.safetensors: does not belong to"):
        OrtEngine(model)
    data = bytearray(coefficients_path(baked[1]).read_bytes())
    data[-100] ^= 1
    coefficients_path(model).write_bytes(data)
    with pytest.raises(DarsrError, match=r"m\.coeff\.safetensors: is damaged"):
        OrtEngine(model)


def test_global_is_the_mean_of_the_filters_as_one_convolution(tmp_path):
    facts = export_onnx(pipeline(), tmp_path / "m.onnx", ModelSpec(2, "global"), None, SAMPLES)
    with OrtEngine(tmp_path / "m.onnx") as engine:
        got = engine.run(PHOTO)
    network, x = pipeline(), torch.from_numpy(PHOTO)
    mean = network.correction.coefficients(x).mean((2, 3), keepdim=True).expand(1, 13, 70, 66)
    expected = network.backbone(filter_with_taps(x, mean)).clamp(0, 1)
    assert psnr(got, expected.numpy(), peak=1.0) > 80
    distance = psnr(expected.numpy(), network(x).numpy(), peak=1.0)
    assert facts["psnr_from_network_db"] == pytest.approx(distance, abs=0.02) and distance < 80


def test_each_form_is_cheaper_than_the_one_before(tmp_path):
    costs = [
        export_onnx(pipeline(), tmp_path / f"{form}.onnx", ModelSpec(2, form), None, SAMPLES)["macs_per_lr_pixel"]
        for form in ("network", "filters", "global", "none")
    ]
    backbone = costs[1] - 13 * 3
    assert costs[0] > costs[1] and costs[2] == backbone + 25 * 3


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("form", ["filters", "global"])
def test_forms_in_every_precision(form, precision, tmp_path):
    facts = export_onnx(pipeline(), tmp_path / "m.onnx", ModelSpec(2, form, precision), None, SAMPLES)
    assert facts["parity_psnr_db"] >= facts["parity_floor_db"]
    if precision != "bf16":
        with OrtEngine(tmp_path / "m.onnx") as engine:
            expected = take_form(pipeline(), form, SAMPLES)
            figure = psnr(engine.run(PHOTO), expected.run(PHOTO, expected.coefficients), peak=1.0)
        assert figure >= facts["parity_floor_db"] - 1


def test_a_form_without_its_image_is_refused(tmp_path):
    for form in ("filters", "global"):
        with pytest.raises(DarsrError, match=f"form {form}: is made from the adapted image, .*--image"):
            export_onnx(pipeline(), tmp_path / "m.onnx", ModelSpec(2, form))
    assert not list(tmp_path.iterdir())


def test_forms_that_a_kind_of_correction_has():
    assert [choose_form(kind, None, "a") for kind in ("none", "global", "network")] == ["none", "global", "network"]
    assert choose_form("network", "filters", "a") == "filters" and choose_form("global", "global", "a") == "global"
    for kind, form in (("none", "network"), ("none", "global"), ("global", "filters"), ("global", "network")):
        with pytest.raises(DarsrError, match=rf"a\.darsr: its correction is of kind {kind}, so it has no form {form}"):
            choose_form(kind, form, "a.darsr")
    with pytest.raises(DarsrError, match="form mean: is not known; choose one of network, filters, global"):
        choose_form("network", "mean", "a")
