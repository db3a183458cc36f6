"""Build the TensorRT engines that :func:`darsr_deploy.open_engine` finds neither in a bundle nor in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.trt.bundle import TrtBundle
from darsr_deploy.trt.engine_file import EngineFacts
from darsr_deploy.trt.library import Library, require_gpu
from darsr_deploy.trt.open_bundle import Built
from darsr_deploy.trt.shapes import Shapes

from .build_engine import BuildOptions, Progress, no_progress
from .bundle_engines import build_graphs
from .engine import Comparison, build_file


@dataclass(frozen=True)
class Builder:
    """Builder of missing engines; see :class:`darsr_deploy.trt.open_bundle.Builder`.

    Attributes:
        comparison: for the engine of a model file; those of a bundle are compared with ONNX Runtime.
        progress: shows how far a build is.
    """

    comparison: Comparison = Comparison()  # noqa: RUF009  frozen
    progress: Progress = no_progress

    def build_graphs(self, bundle: TrtBundle, files: dict[str, bytes], shapes: Shapes) -> Built:
        """Build the engines of a bundle's graphs for this machine's GPU."""
        options = BuildOptions(shapes, _targets(bundle.library, bundle.device.target))
        with self.progress("TensorRT") as report:
            return build_graphs(bundle.manifest, files, bundle.library, options, report)

    def build_model(self, onnx: Path, target: Path, library: Library, *, shapes: Shapes, key: str) -> EngineFacts:
        """Build the engine of a model file for this machine's GPU, compare it and write it."""
        options = BuildOptions(shapes, _targets(library, require_gpu(library)[1]))
        with self.progress("TensorRT") as report:
            return build_file(onnx, target, library, options, self.comparison, report=report, key=key)


def _targets(library: Library, target: str) -> tuple[str, ...]:
    return (target,) if library.family.name == "trt-rtx" else ()
