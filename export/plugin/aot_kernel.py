"""Compile the correction filter into an engine: ``python -m export.plugin.aot_kernel photo.onnx -o photo.engine``.

TensorRT 10.9 and newer take kernels compiled ahead of time through ``tensorrt.plugin`` and store them in the engine, which
then runs wherever an engine of its kind runs, without this module, Triton or a library. The kernel is that of
:mod:`darsr_train.networks.triton_filter`, so this needs Triton, but not PyTorch. For older versions: :mod:`.build`.
"""

# Without ``from __future__ import annotations``: tensorrt.plugin reads the annotations, and wants classes, not their names.

import argparse
import importlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import coefficients_path
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.files.places import Targets
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine_file import SUFFIX, EngineFacts, sidecar_path
from darsr_deploy.trt.library import FAMILIES, Library, import_library
from darsr_deploy.trt.parity import reference_from_file
from darsr_deploy.trt.shapes import DEFAULT_SHAPES, parse_shapes

from ..artefacts.build_engine import BuildOptions
from ..artefacts.engine import Comparison, build_file
from ..onnx_graphs.precision import FILTER_DOMAIN

PLUGIN = f"{FILTER_DOMAIN}::CorrectionFilter"
LEAST_RELEASE = (10, 9)
BLOCK = 256  # pixels of one program of the kernel
_TYPES = {"FLOAT": "fp32", "HALF": "fp16"}  # of TensorRT, as Triton calls them


class Kernel(NamedTuple):
    """A compiled kernel and its launch: one program for each BLOCK pixels of an image."""

    name: str
    ptx: str
    threads: int
    shared_bytes: int


Compile = Callable[[str, str, int], Kernel]


def compile_kernel(kind: str, target: str, driver: int = 0) -> Kernel:
    """Compile the kernel for a GPU, which need not be present.

    Args:
        kind: ``fp32`` or ``fp16``, of image, coefficients and result.
        target: compute capability, ``sm_89``.
        driver: version of CUDA that will load it (13010: 13.1) and limits the PTX version; 0: the compiler's newest.

    Raises:
        DarsrError: no Triton, or one whose kernels TensorRT cannot launch.
    """
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.compiler import ptx_get_version
        from triton.compiler import ASTSource
    except ImportError as error:
        raise DarsrError("the plugin", f"Triton cannot be imported ({error})", "pip install triton") from error
    from darsr_train.networks.triton_filter import linear_filter_kernel

    image = f"*{kind}"
    signature = {"x": image, "c": image, "height": "i32", "width": "i32", "y": image, "BLOCK": "constexpr"}
    source = ASTSource(linear_filter_kernel, signature=signature, constexprs={"BLOCK": BLOCK})
    gpu, options = GPUTarget("cuda", int(target.removeprefix("sm_")), 32), {"enable_fp_fusion": True}
    compiled = triton.compile(source, target=gpu, options=options)
    most = ptx_get_version(f"{driver // 1000}.{driver % 1000 // 10}") if driver else None
    if most is not None and ptx_version(compiled.asm["ptx"]) > most:
        compiled = triton.compile(source, target=gpu, options=options | {"ptx_version": most})
    facts = compiled.metadata
    # Triton puts two pointers to scratch memory behind the parameters. TensorRT passes null for what it was not given.
    if getattr(facts, "global_scratch_size", 0) or getattr(facts, "profile_scratch_size", 0):
        why = f"Triton {triton.__version__} compiles its kernel with scratch memory, which TensorRT does not give it"
        raise DarsrError("the plugin", why, "use another version of Triton")
    return Kernel(facts.name, compiled.asm["ptx"], 32 * facts.num_warps, facts.shared)


def ptx_version(ptx: str) -> int:
    """Return the version of a PTX text: 88 for ``.version 8.8``."""
    major, minor = ptx.split(".version ", 1)[1].split(maxsplit=1)[0].split(".")
    return 10 * int(major) + int(minor)


def register(library: Library, target: str, driver: int = 0, compile: Compile = compile_kernel) -> None:
    """Register the plugin with TensorRT in this process, for one GPU; a second call does nothing.

    Raises:
        DarsrError: a version without ahead-of-time plugins, or TensorRT for RTX, which has none; no Triton.
    """
    if library.family.name != "trt" or library.release < LEAST_RELEASE:
        why = f"{library.family.title} {library.version} takes no kernels ahead of time, TensorRT 10.9 and newer do"
        raise DarsrError("the plugin", why, "use the file without it, or the library of export.plugin.build")
    trtp = importlib.import_module(f"{library.module.__name__}.plugin")
    if hasattr(getattr(trtp.op, FILTER_DOMAIN, None), PLUGIN.partition("::")[2]):
        return
    # compiled now: TensorRT would swallow an error in a callback
    kernels = {kind: compile(kind, target, driver) for kind in _TYPES.values()}

    @trtp.register(PLUGIN)
    def described(x: trtp.TensorDesc, c: trtp.TensorDesc) -> trtp.TensorDesc:
        return x.like()

    @trtp.autotune(PLUGIN)
    def tuned(
        x: trtp.TensorDesc, c: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination("FP32|FP16, FP32|FP16, FP32|FP16", "LINEAR")]

    @trtp.aot_impl(PLUGIN)
    def compiled(
        x: trtp.TensorDesc, c: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc], tactic: int
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        kernel = kernels[_TYPES[x.dtype.name]]
        images, _, height, width = x.shape_expr
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(height * width, BLOCK)
        launch.grid_y = images
        launch.block_x = kernel.threads
        launch.shared_mem = kernel.shared_bytes
        sizes = trtp.SymIntExprs.from_tuple([trtp.SymInt32(height), trtp.SymInt32(width)])
        return kernel.name.encode(), kernel.ptx.encode(), launch, sizes


def build_with_plugin(
    model: Path, target: Path, library: Library, options: BuildOptions, compile: Compile = compile_kernel
) -> EngineFacts:
    """Build an engine whose correction filter is the fused kernel, compare it with the plain model, and write it.

    Args:
        model: a file of ``darsr export``, of form ``network`` or ``filters``.

    Raises:
        DarsrError: as :func:`register` and :func:`export.artefacts.engine.build_file`, or a model without a correction filter.
    """
    import onnx

    from .onnx_model import resealed, without_body

    spec = read_spec(model)[1]
    with Device() as device:
        register(library, device.target, device.driver_version, compile)
    with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
        bare = Path(folder) / model.name
        bare.write_bytes(resealed(without_body(onnx.load(model), str(model), quick=True)))
        if coefficients_path(model).is_file():
            shutil.copy(coefficients_path(model), coefficients_path(bare))
        comparison = Comparison(reference_from_file(model, spec.precision))
        return build_file(bare, target, library, options, comparison)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # on stderr
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a file of darsr export --keep-function, form network or filters")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a name that ends in .engine")
    parser.add_argument("--shape", metavar="HxW", help="the one size it takes")
    parser.add_argument("--shapes", metavar="MIN,OPT,MAX", help="each HxW")
    parser.add_argument("--workspace", type=int, default=0, metavar="MB", help="most scratch memory of a layer")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    if arguments.output.suffix != SUFFIX:
        why = f"does not end in {SUFFIX}, by which infer knows an engine"
        raise DarsrError(str(arguments.output), why, "choose such a name")
    targets = Targets(arguments.overwrite)
    for path in (arguments.output, sidecar_path(arguments.output)):
        targets.claim(path)
    own, beside = coefficients_path(arguments.model), coefficients_path(arguments.output)
    if own.is_file() and own != beside:
        targets.claim(beside)
    shapes = parse_shapes(arguments.shape, arguments.shapes) or DEFAULT_SHAPES
    library = import_library(FAMILIES["trt"])
    options = BuildOptions(shapes, workspace_mb=arguments.workspace)
    facts = build_with_plugin(arguments.model, arguments.output, library, options)
    print(f"{arguments.output}  ({facts.bytes / 1000:.0f} kB, {facts.shapes})")


if __name__ == "__main__":
    try:
        main()
    except DarsrError as error:
        sys.exit(f"error: {error}")
