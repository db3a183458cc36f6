"""Prepare a model for the TensorRT plugin: ``python -m export.plugin.onnx_model photo.onnx -o photo-plugin.onnx``.

TensorRT's ONNX parser prefers the function's body to a plugin of the same name, unless told otherwise
(ENABLE_PLUGIN_OVERRIDE, which TensorRT 10.3 lacks). In a file without the body only the plugin is left.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, helper

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import atomic_path
from darsr_deploy.files.onnx_bytes import KEY as SEAL
from darsr_deploy.files.onnx_bytes import sealed

from ..onnx_graphs.precision import FILTER_DOMAIN


def without_body(model: ModelProto, what: str = "the model", quick: bool = False) -> ModelProto:
    """Return a copy whose ``darsr::CorrectionFilter`` has no body, for runtimes with a kernel of that name only.

    Args:
        quick: the kernel is that of :mod:`.aot_kernel`. Such plugins have a namespace, which the parser of 10.9 reads from
            an attribute of the node, like the choice of the compiled form.

    Raises:
        DarsrError: a model without a correction filter.
    """
    if not any((node.domain, node.op_type) == (FILTER_DOMAIN, "CorrectionFilter") for node in model.graph.node):
        hint = "export it with --keep-function; forms none and global need no plugin"
        raise DarsrError(what, "has no correction filter as one node", hint)
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.functions[:]
    bare.functions.extend(f for f in model.functions if (f.domain, f.name) != (FILTER_DOMAIN, "CorrectionFilter"))
    for node in bare.graph.node:
        if quick and (node.domain, node.op_type) == (FILTER_DOMAIN, "CorrectionFilter"):
            node.attribute.append(helper.make_attribute("plugin_namespace", FILTER_DOMAIN))
            node.attribute.append(helper.make_attribute("aot", 1))
    return bare


def resealed(model: ModelProto) -> bytes:
    """Return the bytes of a changed model, with a new checksum if it was exported with one."""
    kept = [entry for entry in model.metadata_props if entry.key != SEAL.decode()]
    seal = sealed if len(kept) < len(model.metadata_props) else bytes
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return seal(model.SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a file of darsr export --keep-function, form network or filters")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        model = onnx.load(arguments.model)
    except (OSError, DecodeError) as error:
        raise DarsrError(str(arguments.model), f"cannot be read ({error})", "give a file of darsr export") from error
    bare = without_body(model, str(arguments.model))
    with atomic_path(arguments.output) as temporary:
        temporary.write_bytes(resealed(bare))
    print(arguments.output)


if __name__ == "__main__":
    try:
        main()
    except DarsrError as error:
        sys.exit(f"error: {error}")
