"""Model repositories for Triton: the configuration is one by Triton's own schema, and says what the model's file says."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import to_tensor
from export.artefacts.triton_repository import configuration, describe_engine, describe_onnx, publish
from tests.support.commands import done, names, refused, strict_json
from tests.support.onnx_models import onnx_model
from tests.test_cli import identity  # noqa: F401

schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] brings Triton's schema")
from google.protobuf import text_format  # noqa: E402


def parsed(text: str):
    """Refuses fields and enumerators that Triton's schema does not have."""
    return text_format.Parse(text, schema.ModelConfig())


def types(config) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in (*config.input, *config.output)}


@pytest.fixture(scope="module")
def model(photo, identity, tmp_path_factory):
    """A repository as the command writes it, and its model folder."""
    folder = tmp_path_factory.mktemp("triton")
    identity.save(folder / "my photo.darsr")
    shown = done("export", folder / "my photo.darsr", "--triton", folder / "models", "--json")
    row = strict_json(shown.stdout)
    assert row["triton"] == str(folder / "models" / "my_photo")
    return folder / "models" / "my_photo"


def test_it_is_laid_out_as_triton_reads_it(model):
    assert (
        names(model.parent) == {"my_photo"}
        and names(model) == {"1", "config.pbtxt"}
        and names(model / "1") == {"model.onnx"}
    )
    assert (model / "1" / "model.onnx").read_bytes() == (model.parent.parent / "my photo.onnx").read_bytes()


def test_the_configuration_follows_the_schema_and_the_model(model):
    config = parsed((model / "config.pbtxt").read_text())
    assert parsed(text_format.MessageToString(config)) == config
    assert (config.name, config.backend) == (model.name, "onnxruntime")
    assert (model / "1" / config.default_model_filename).is_file()
    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"))
    for said, real in zip(
        (*config.input, *config.output), (*session.get_inputs(), *session.get_outputs()), strict=True
    ):
        dims = [d if isinstance(d, int) else -1 for d in real.shape]
        assert (said.name, [-1, *said.dims]) == (real.name, dims) and dims[1:] == [3, -1, -1]
        assert (said.data_type, real.type) == (schema.TYPE_FP32, "tensor(float)")
    assert config.max_batch_size == 8 and config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    assert [(group.kind, group.count) for group in config.instance_group] == [(schema.ModelInstanceGroup.KIND_AUTO, 1)]


def test_the_warm_up_is_a_request_that_the_model_answers(model):
    config = parsed((model / "config.pbtxt").read_text())
    (warm_up,) = config.model_warmup
    shape = [warm_up.batch_size, *warm_up.inputs["lr"].dims]
    assert shape == [1, 3, 128, 128] and warm_up.inputs["lr"].data_type == types(config)["lr"]
    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"))
    (sr,) = session.run(["sr"], {"lr": np.random.default_rng(0).random(shape, np.float32)})
    assert sr.shape == (1, 3, 256, 256)


def test_a_batch_is_its_images_so_the_server_may_join_requests(model, photo):
    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"))
    images = [to_tensor(photo[:40, :48]), to_tensor(photo[40:, 48:])]
    (joined,) = session.run(["sr"], {"lr": np.concatenate(images)})
    apart = [session.run(["sr"], {"lr": image})[0] for image in images]
    np.testing.assert_allclose(joined, np.concatenate(apart), atol=1e-5)


def test_nothing_is_replaced_without_being_asked(model, identity, tmp_path):
    before = (model / "config.pbtxt").read_bytes()
    source = model.parent.parent / "my photo.onnx"
    with pytest.raises(DarsrError, match="my_photo: exists already; give --overwrite"):
        publish(source, model.parent)
    assert publish(source, model.parent, overwrite=True) == model
    assert (model / "config.pbtxt").read_bytes() == before and names(model.parent) == {"my_photo"}
    (tmp_path / "my_photo").mkdir()
    with pytest.raises(DarsrError, match="is not a model of a repository"):
        publish(source, tmp_path, overwrite=True)
    identity.save(tmp_path / "a.darsr")
    refused(
        "export", tmp_path / "a.darsr", "--form", "filters", "--triton", tmp_path / "m", name="--triton: form filters"
    )
    (tmp_path / "a").mkdir()
    refused("export", tmp_path / "a.darsr", "--triton", tmp_path, name=f"{tmp_path / 'a'}: exists already")
    assert not (tmp_path / "a.onnx").exists(), "refused before the work"


def test_a_fixed_batch_is_not_joined(tmp_path):
    onnx.save(onnx_model(takes="float[1, 3, h, w] picture", gives="float[1, 3, hh, ww] big"), tmp_path / "m.onnx")
    config = parsed(configuration("m", describe_onnx(tmp_path / "m.onnx")))
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 3, -1, -1]
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1, "0 would skip it"
    assert list(warm_up.inputs["picture"].dims) == [1, 3, 128, 128] and warm_up.inputs["picture"].zero_data


@pytest.mark.parametrize(
    "sizes, lr, sr, warm",
    [
        ([[64, 64], [270, 480], [540, 960]], [1, 3, -1, -1], [1, 3, -1, -1], [1, 3, 270, 480]),
        ([[270, 480]] * 3, [1, 3, 270, 480], [1, 3, 540, 960], [1, 3, 270, 480]),
    ],
    ids=["dynamic", "static"],
)
def test_an_engine_becomes_a_plan(sizes, lr, sr, warm, tmp_path):
    engine = tmp_path / "photo.engine"
    engine.write_bytes(b"plan")
    facts = {"family": "trt", "shapes": sizes, "spec": {"scale": 2}}
    (tmp_path / "photo.engine.json").write_text(json.dumps({"kind": "engine", "version": 1, "facts": facts}))
    folder = publish(engine, tmp_path / "models")
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"
    config = parsed((folder / "config.pbtxt").read_text())
    assert (config.backend, config.default_model_filename, config.max_batch_size) == ("tensorrt", "model.plan", 0)
    assert [list(t.dims) for t in (*config.input, *config.output)] == [lr, sr]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert list(config.model_warmup[0].inputs["lr"].dims) == warm


def test_an_engine_that_triton_cannot_load_is_refused(tmp_path):
    (tmp_path / "a.engine").write_bytes(b"plan")
    with pytest.raises(DarsrError, match=r"a\.engine\.json: cannot be read"):
        describe_engine(tmp_path / "a.engine")
    for content, why in (
        ("{}", "is not a sidecar"),
        ('{"facts": {"family": "trt-rtx", "shapes": [[1, 1]] , "spec": {"scale": 2}}}', "is not a sidecar"),
    ):
        (tmp_path / "a.engine.json").write_text(content)
        with pytest.raises(DarsrError, match=why):
            describe_engine(tmp_path / "a.engine")
    facts = {"family": "trt-rtx", "shapes": [[8, 8]] * 3, "spec": {"scale": 2}}
    (tmp_path / "a.engine.json").write_text(json.dumps({"facts": facts}))
    with pytest.raises(DarsrError, match="is an engine of trt-rtx, and Triton's backend is TensorRT"):
        describe_engine(tmp_path / "a.engine")
