"""Small super-resolution networks as ONNX models, written in ONNX's own text so that no exporter is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from darsr_deploy.files.model_spec import METADATA_KEY, ModelSpec

ENLARGE = "big = ConvTranspose <strides = [{scale}, {scale}], group = 3> (picture, weight)"


def onnx_model(
    body: str = ENLARGE,
    scale: int = 2,
    takes: str = "float[n, 3, h, w] picture",
    gives: str = "float[n, 3, hh, ww] big",
    opset: int = 18,
    ir_version: int = 8,
    functions: str = "",
    **weights: np.ndarray,
) -> ModelProto:
    """A model with the given nodes; by default the nearest-neighbour enlargement, as a transposed convolution.

    Args:
        body: nodes in the syntax of ``onnx.parser``; ``{scale}`` is replaced.
        functions: local functions, in the same syntax.
        weights: further initializers beside ``weight``, the kernel of the enlargement.
    """
    weights = {"weight": np.ones((3, 1, scale, scale), np.float32), **weights}
    used = {name: array for name, array in weights.items() if name in body}
    opsets = f'"" : {opset}' + (', "local" : 1' if functions else "")
    head = f"<ir_version: {ir_version}, opset_import: [{opsets}]>\ng ({takes}) => ({gives}) {{\n"
    model = onnx.parser.parse_model(head + body.replace("{scale}", str(scale)) + "\n}\n" + functions)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in used.items())
    return model


def convolutional(seed: int = 0) -> ModelProto:
    """Two convolutions, a PReLU and a transposed convolution of 6x6 on top of the enlargement: 1,203 parameters at x2."""
    random = np.random.default_rng(seed)
    weights = {
        "first": 0.3 * random.standard_normal((8, 3, 3, 3)),
        "slope": np.full((8, 1, 1), 0.2),
        "last": 0.005 * random.standard_normal((8, 3, 6, 6)),
    }
    body = f"""
        features = Conv <pads = [1, 1, 1, 1]> (picture, first)
        active = PRelu (features, slope)
        detail = ConvTranspose <strides = [2, 2], pads = [2, 2, 2, 2]> (active, last)
        {ENLARGE.replace("big", "coarse")}
        big = Add (coarse, detail)
    """
    return onnx_model(body, **{name: array.astype(np.float32) for name, array in weights.items()})


def doubling(path: Path) -> Path:
    """A file with the metadata of an exported model; it repeats every pixel."""
    body = ENLARGE.replace("big", "sr").replace("picture", "lr")
    model = onnx_model(body, takes="float[n, 3, h, w] lr", gives="float[n, 3, hh, ww] sr")
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(ModelSpec(2).to_json())})
    path.write_bytes(model.SerializeToString())
    return path
