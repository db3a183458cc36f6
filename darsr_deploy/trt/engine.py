"""TensorRT and TensorRT for RTX: an engine file on a GPU, without PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..bundle.graphs import Step
from ..engines.base import check_input
from ..errors import DarsrError
from ..files.coefficients import read_coefficients
from ..files.model_spec import Locality
from ..files.onnx_bytes import read_spec
from .cache import EngineCache, engine_key
from .chain import Chain, Weights
from .cuda import Event
from .engine_file import EngineFacts, read_engine
from .library import FAMILIES, Library, import_library, require_device, require_gpu, require_version
from .shapes import DEFAULT_SHAPES, fixed_shapes
from .trust import require_trust

if TYPE_CHECKING:
    from .open_bundle import Builder

_HINT = "give the adapter or a bundle (darsr export --split) in fp32 or fp16, which go in tiles: --precision fp16"


class TrtEngine:
    """An engine file. See :class:`darsr_deploy.engines.base.Engine` and :class:`darsr_deploy.engines.base.Tileable`.

    Not to be shared by threads at the same moment; another thread may use it afterwards.

    Args:
        model: an ``.engine`` file written by ``darsr export``, with its sidecar.
        trust: load it even if it was not built on this machine. An engine is code.
        device: index of the GPU.
        graphs: replay a captured CUDA graph from the second image of one size on.
        built: bytes and facts of an engine that was built a moment ago, instead of the file; it need not be trusted.
        coefficients: of form ``filters``, 1 x 13 x H x W, instead of the file beside it.
        jit_folder: where TensorRT for RTX keeps what it compiled for this GPU; by default it compiles at every start.

    Raises:
        DarsrError: no GPU or library, an engine of another version, GPU or contract, a damaged or untrusted file.
    """

    stages = 0

    def __init__(
        self,
        model: str | Path,
        trust: bool = False,
        *,
        device: int = 0,
        graphs: bool = True,
        built: tuple[bytes, EngineFacts] | None = None,
        coefficients: np.ndarray | None = None,
        jit_folder: Path | None = None,
    ) -> None:
        data, self.facts = built or read_engine(model)
        if self.facts.graph:
            why = f"is the engine of one graph ({self.facts.graph}) of a runtime bundle"
            raise DarsrError(str(model), why, "give the bundle with --model, and --engine trt")
        if built is None and not trust:
            require_trust(Path(model), self.facts.sha256)
        self.spec, self._model = self.facts.spec, str(model)
        self.name, self.locality = self.facts.family, _describe_tiles(self.facts)
        library = import_library(FAMILIES[self.facts.family])
        require_version(self._model, self.facts, library)
        channels = {"lr": 3} | ({"coeff": 13} if self.spec.form == "filters" else {})
        if "coeff" in channels and coefficients is None:
            coefficients = read_coefficients(model, self.spec)
        self._steps = [Step("model", {"lr": "lr"}, "sr", "sr")]
        self._one_image, self._coefficients = coefficients is not None, None
        with contextlib.ExitStack() as held:  # what was opened is closed again if anything below fails
            self._chain = Chain(library, device, graphs, jit_folder)
            held.callback(self._chain.close)
            self.device, self.provider = self._chain.device, f"cuda:{device}"
            require_device(self._model, self.facts, self.device)
            opened, sides = self._chain.open("model", data, self.facts, self._model), self.facts.shapes
            sizes = (sides.min, sides.opt, sides.max)
            opened.require_inputs({name: [(1, c, *size) for size in sizes] for name, c in channels.items()}, "sr")
            if coefficients is not None:
                self._coefficients = Weights(self.device, self._chain.stream, {"coeff": coefficients}, self._model)
                held.callback(self._coefficients.free)
            self._held: contextlib.ExitStack | None = held.pop_all()

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge images one by one; see :meth:`darsr_deploy.engines.base.Engine.run`.

        Raises:
            DarsrError: a size that the engine was not built for, or a failure on the device.
        """
        lr = check_input(lr)
        height, width = lr.shape[2:]
        if not self.facts.shapes.holds(height, width):
            raise DarsrError(
                self._model,
                f"is built for sizes {self.facts.shapes} (height x width), and this image has {height}x{width}",
                f"build one with --shape or --shapes that holds it, or {_HINT}",
            )
        if self._one_image and len(lr) != 1:
            raise DarsrError(self._model, f"holds the filters of one image, and this is {len(lr)}", "use form network")
        return np.concatenate([self._run_one(image[None]) for image in lr])

    def check_size(self, lr: np.ndarray) -> None:
        """Accept any size: tiles are of those that the engine takes."""

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """Enlarge a tile; see :meth:`darsr_deploy.engines.base.Tileable.run_tile`."""
        return self.run(lr)

    def free_memory(self) -> int:
        """Return the bytes that a tile may have: on the device, and on the host where that has less."""
        return self._chain.free_bytes()

    def time(self, lr: np.ndarray) -> dict[str, float]:
        """Return milliseconds on the device's own clock for one image: ``upload``, ``compute``, ``download``."""
        marks: list[Event] = []
        self.run(lr[:1])  # whatever a first run does is done
        try:
            self._run_one(check_input(lr[:1]), marks)
            parts = zip(("upload", "compute", "download"), marks, marks[1:])
            return {name: after.milliseconds_since(before) for name, before, after in parts}
        finally:
            for mark in marks:
                mark.close()

    def inspect(self) -> str:
        """Return what TensorRT says of every layer of the built engine, as JSON."""
        return self._chain.engines["model"].inspect()

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self.device.use()
            self._held.close()
            self._held = None

    def _run_one(self, image: np.ndarray, marks: list[Event] | None = None) -> np.ndarray:
        shape = (1, 3, *(self.spec.scale * side for side in image.shape[2:]))
        feeds = {"lr": image}
        return self._chain.run(image.shape, self._steps, feeds, {"sr": shape}, self._coefficients, marks=marks)


def open_model(
    onnx: Path, library: Library, cache: EngineCache, say: Callable[[str], None], builder: Builder | None = None
) -> TrtEngine:
    """Open the engine of a model file for the GPU at hand: from the cache, else built.

    An engine that cannot be loaded (damaged, another driver) is built again, once.

    Raises:
        DarsrError: no GPU, no engine in the cache and no builder, or an engine that cannot be built or loaded.
    """
    gpu, target = require_gpu(library)
    data, spec = read_spec(onnx)
    shapes = fixed_shapes(spec) or DEFAULT_SHAPES
    key = engine_key(data, spec.precision, library, shapes, gpu=gpu, target=target)
    with cache.locked(key) as path:
        if path.is_file():
            try:
                engine = TrtEngine(path, jit_folder=cache.folder)
                cache.used(key)
                return engine
            except DarsrError as error:
                cache.report_unusable(key, error, say, builder is not None)
        family = library.family
        if builder is None:
            command = f"darsr export {onnx} --format {family.name}"
            raise DarsrError(str(onnx), f"is no engine, and there is none for {gpu} yet", f"build it: {command}")
        say(f"building the {family.title} engine for {gpu}, {shapes} (once; it is kept in the cache)")
        builder.build_model(onnx, path, library, shapes=shapes, key=key)
        cache.shrink(keep=key)
        return TrtEngine(path, jit_folder=cache.folder)


def _describe_tiles(facts: EngineFacts) -> Locality:
    """Return what tiles need. Filters belong to their pixels, and an engine of one size takes images of that size."""
    own, most = facts.spec.locality(), min(facts.shapes.max)
    if facts.spec.form == "filters" or facts.shapes.static:
        return Locality(why="an engine of one size takes whole images", hint=_HINT)
    return replace(own, most=most, why=own.why or "this model takes whole images", hint=_HINT)
