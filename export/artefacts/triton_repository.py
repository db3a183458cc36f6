"""Publish a model to a model repository of NVIDIA Triton Inference Server.

``DIR/NAME/config.pbtxt`` and ``DIR/NAME/1/model.onnx`` (ONNX Runtime backend) or ``.../1/model.plan`` (TensorRT backend).
The configuration is protobuf text, of the message ``inference.ModelConfig`` in Triton's ``model_config.proto``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.schema import parse_json

_MAX_BATCH = 8  # images of one size that the server may join
_WARM_UP = 128  # side of the picture a dynamic model is warmed up with
_TYPES = {1: "TYPE_FP32", 10: "TYPE_FP16", 16: "TYPE_BF16"}  # onnx.TensorProto's numbers


@dataclass(frozen=True)
class Tensor:
    """An input or output; dims as the model has them, -1 where they are dynamic."""

    name: str
    type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """Content of a configuration.

    Attributes:
        file: name of the model inside a version folder, which each backend looks for.
        batch: images of one size that may be joined; 0 where the model's batch is fixed, and dims then hold it.
        warm_up: height and width of the picture that is run before the model counts as ready.
    """

    backend: str
    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int
    warm_up: tuple[int, int]
    on_gpu: bool = False


def publish(model: Path, repository: Path, overwrite: bool = False) -> Path:
    """Put an exported model into a model repository, whole or not at all; returns the model's folder.

    Args:
        model: an ``.onnx`` file, or an ``.engine`` of enterprise TensorRT with its sidecar beside it.

    Raises:
        DarsrError: a model that Triton cannot serve, one of that name that is there already, a folder that cannot be written.
    """
    served = describe_engine(model) if model.suffix == ".engine" else describe_onnx(model)
    folder = check_free(model, repository, overwrite)
    with _whole_folder(folder) as temporary:
        (temporary / "1").mkdir()
        shutil.copyfile(model, temporary / "1" / served.file)
        (temporary / "config.pbtxt").write_text(configuration(folder.name, served), encoding="utf-8")
    return folder


def check_free(model: Path, repository: Path, overwrite: bool) -> Path:
    """Return the folder of a model to be published; its name is the one that clients request.

    Raises:
        DarsrError: there is one already and it may not be replaced.
    """
    folder = repository / re.sub(r"[^A-Za-z0-9_-]", "_", model.stem)
    if os.path.lexists(folder) and not overwrite:
        raise DarsrError(str(folder), "exists already", "give --overwrite, or another folder with --triton")
    if os.path.lexists(folder) and not (folder / "config.pbtxt").is_file():
        raise DarsrError(str(folder), "is not a model of a repository", "give another folder with --triton")
    return folder


def describe_onnx(path: Path) -> Served:
    """Read inputs, outputs and their sizes from an ONNX file.

    Raises:
        DarsrError: form ``filters``, whose coefficients belong to one image.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    inputs, outputs = (tuple(_tensor(value, path) for value in values) for values in (graph.input, graph.output))
    if len(inputs) != 1:
        raise DarsrError(str(path), "takes the coefficients of one image (form filters)", "export the form network")
    batched = all(tensor.dims[0] == -1 for tensor in (*inputs, *outputs))
    return Served("onnxruntime", "model.onnx", inputs, outputs, _MAX_BATCH if batched else 0, (_WARM_UP, _WARM_UP))


def describe_engine(path: Path) -> Served:
    """Read inputs, outputs and their sizes from the sidecar of an engine (``photo.engine.json``); its batch is 1.

    Raises:
        DarsrError: no sidecar, or an engine of TensorRT for RTX, which Triton's backend cannot load.
    """
    sidecar = Path(f"{path}.json")
    try:
        facts = parse_json(sidecar.read_bytes())["facts"]
        family, scale = facts["family"], int(facts["spec"]["scale"])
        least, usual, largest = (tuple(int(side) for side in size) for size in facts["shapes"])
    except OSError as error:
        raise DarsrError(
            str(sidecar), f"cannot be read ({error.strerror})", "copy it from beside the engine"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DarsrError(str(sidecar), "is not a sidecar of an engine", "build the engine again") from error
    if family != "trt":
        raise DarsrError(
            str(path), f"is an engine of {family}, and Triton's backend is TensorRT", "export with --format trt"
        )
    sides = tuple(low if low == high else -1 for low, high in zip(least, largest))
    large = tuple(side if side == -1 else side * scale for side in sides)
    lr, sr = Tensor("lr", "TYPE_FP32", (1, 3, *sides)), Tensor("sr", "TYPE_FP32", (1, 3, *large))
    return Served("tensorrt", "model.plan", (lr,), (sr,), 0, usual, on_gpu=True)


def configuration(name: str, served: Served) -> str:
    """Format ``config.pbtxt``."""
    (lr,) = served.inputs
    picture = [*(lr.dims[1:-2] if served.batch else lr.dims[:-2]), *served.warm_up]
    lines = [
        "# Written by darsr export --triton. Pictures: RGB in [0, 1], N x 3 x H x W.",
        f'name: "{name}"',
        f'backend: "{served.backend}"',
        f'default_model_filename: "{served.file}"',
        f"max_batch_size: {served.batch}",
        *(_declared("input", tensor, served.batch) for tensor in served.inputs),
        *(_declared("output", tensor, served.batch) for tensor in served.outputs),
        "version_policy { latest { num_versions: 1 } }",
        f"instance_group [ {{ kind: {'KIND_GPU' if served.on_gpu else 'KIND_AUTO'} count: 1 }} ]",
    ]
    if served.batch:  # joins waiting requests of one size; none waits for others to come
        lines.append("dynamic_batching { }")
    lines += [  # black, since Triton's random data are random bytes: most are no colours, some are NaN
        "model_warmup [ {",
        '  name: "one picture" batch_size: 1',
        f'  inputs {{ key: "{lr.name}" value {{ data_type: {lr.type} dims: {_listed(picture)} zero_data: true }} }}',
        "} ]",
    ]
    return "\n".join(lines) + "\n"


def _declared(kind: str, tensor: Tensor, batch: int) -> str:
    dims = tensor.dims[1:] if batch else tensor.dims  # Triton adds the batch itself
    return f'{kind} [ {{ name: "{tensor.name}" data_type: {tensor.type} dims: {_listed(dims)} }} ]'


def _listed(values: list[int] | tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, values))} ]"


def _tensor(value, path: Path) -> Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES:
        raise DarsrError(str(path), f"{value.name} is of a type that cannot be served", "export it with darsr export")
    dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return Tensor(value.name, _TYPES[kind.elem_type], dims)


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` if the block succeeds."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".darsr-", dir=folder.parent) as work:
            new, old = Path(work) / "new", Path(work) / "old"
            new.mkdir()
            yield new
            if os.path.lexists(folder):
                os.replace(folder, old)
            os.replace(new, folder)
    except OSError as error:
        raise DarsrError(
            str(folder), f"cannot be written ({error.strerror or error})", "give another folder with --triton"
        ) from error
