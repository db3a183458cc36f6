"""``darsr infer`` with TensorRT: an adapter, a model file or an engine file, to an engine that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from darsr_deploy.bundle.manifest import Manifest, is_bundle
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.folders import engines_folder
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt.bundle import TrtBundleEngine
from darsr_deploy.trt.cache import EngineCache
from darsr_deploy.trt.engine import TrtEngine, open_model
from darsr_deploy.trt.engine_file import SUFFIX, read_facts
from darsr_deploy.trt.library import FAMILIES, choose_family, import_library, require_gpu
from darsr_deploy.trt.parity import Reference

from ..artefacts.build_engine import CannotBuild, Report
from ..artefacts.bundle_engines import EngineBuilder, open_in_tensorrt

if TYPE_CHECKING:
    from ..artefacts.cache import Source

ENGINES = ("trt", "trt-rtx")


def is_engine_file(model: Path | None) -> bool:
    return model is not None and model.suffix == SUFFIX


def open_trt(
    source: Source,
    engine: str,
    say: Callable[[str], None],
    precision: str | None = None,
    trust: bool = False,
    report: Report | None = None,
) -> TrtEngine | TrtBundleEngine:
    """Open what a user names in TensorRT.

    An adapter (or the backbone alone) runs in a bundle, as in ONNX Runtime: its engines are built once for all adapters, and
    take images of any size in tiles. In ``int8`` and ``bf16``, which bundles do not have, it becomes a model of its own.

    Args:
        engine: ``trt`` (enterprise TensorRT if present, else TensorRT for RTX), ``trt-rtx``, or ``auto`` for an engine file.
        trust: load an engine file, or a bundle's own engines, that were not built here.

    Raises:
        DarsrError: no GPU or library, said before the seconds that an export takes; or what building and loading raise.
    """
    if engine not in ("auto", *ENGINES):
        raise DarsrError(f"engine {engine}", "does not run an engine file", "use --engine trt or trt-rtx")
    if is_engine_file(source.model):
        facts = read_facts(source.model)
        if engine in FAMILIES and choose_family(engine).name != facts.family and engine != facts.family:
            raise DarsrError(
                str(source.model), f"is an engine of {FAMILIES[facts.family].title}", f"use --engine {facts.family}"
            )
        _check(source, facts.spec, precision)
        return TrtEngine(source.model, trust, jit_folder=engines_folder())
    from ..artefacts.cache import BUNDLE_PRECISIONS, adapter_in_bundle, cached_bundle_folder

    library = import_library(choose_family(engine))
    require_gpu(library)
    cache = EngineCache(engines_folder(), say)
    if source.model is not None and is_bundle(source.model):
        manifest = Manifest.load(source.model)
        _check(source, manifest.spec, precision)
        adapter = adapter_in_bundle(source, manifest.own_adapter(source.model))
        return open_in_tensorrt(source.model, adapter, library, cache, say, report, trust)
    if source.model is None and precision in BUNDLE_PRECISIONS:
        folder = cached_bundle_folder(source, say, precision)
        try:
            return open_in_tensorrt(folder, source.adapter, library, cache, say, report)
        except CannotBuild as error:  # such as weights that are inputs, which an older version may not know
            say(f"{error.args[1]}: going on with an engine for this adapter alone")
    if source.model is not None:
        _check(source, read_spec(source.model)[1], precision)
        return open_model(source.model, library, cache, say, EngineBuilder(say, report))
    onnx, reference, photo = exported(source, say, precision or "fp32")
    return open_model(onnx, library, cache, say, EngineBuilder(say, report, reference, photo))


def exported(source: Source, say: Callable[[str], None], precision: str):
    """The typed ONNX file of an adapter or a backbone from the cache, PyTorch to compare with, and the photo."""
    from ..artefacts.cache import cached_model, load, require_torch_for

    require_torch_for(source)
    import torch

    from ..samples import gather

    onnx = cached_model(source, say, precision)
    pipeline, _ = load(source)

    def run(lr):
        with torch.inference_mode():
            return pipeline(torch.from_numpy(lr)).numpy()

    return onnx, Reference("PyTorch", run), gather(source.adapter).photo


def _check(source: Source, spec: ModelSpec, precision: str | None) -> None:
    """A file has a scale and a precision of its own; asking for others is a mistake."""
    for what, asked, own in (("scale", source.scale, spec.scale), ("precision", precision, spec.precision)):
        if asked not in (None, own):
            raise DarsrError(str(source.model), f"is a model of {what} {own}, asked for {asked}", f"use --{what} {own}")
