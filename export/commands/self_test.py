"""``darsr doctor --self-test``: build, compare and time every engine that this machine has, on the machine itself.

For whoever is the first with a certain GPU: what is printed here belongs into the table of docs/tensorrt.md.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.ort import OrtEngine, installed_runtimes
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.install import install
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.library import FAMILIES, Library, import_library, require_gpu
from darsr_deploy.trt.parity import Reference, reference_from_file
from darsr_deploy.trt.shapes import Shapes

from ..artefacts.build_engine import BuildOptions, Report
from ..artefacts.engine import build_file
from ..samples import natural_noise

HEIGHT, WIDTH = 160, 240
PRECISIONS = ("fp32", "fp16")
_SIZE = (HEIGHT, WIDTH)
_SHAPES = {"static": Shapes(_SIZE, _SIZE, _SIZE), "dynamic": Shapes((16, 16), _SIZE, (512, 512))}
_WARM_UP_SECONDS, _SECONDS, _LEAST_RUNS = 0.2, 1.0, 10


@dataclass(frozen=True)
class Row:
    """One engine: ``ran``, ``built`` (where it cannot run), ``missing`` or ``failed``.

    Attributes:
        end_to_end_ms: median and 90th percentile from an array to an array, copies included.
        device_ms: medians on the GPU's own clock: upload, compute, download.
    """

    engine: str
    state: str
    detail: str
    precision: str = ""
    shapes: str = ""
    build_seconds: float | None = None
    parity_psnr_db: float | None = None
    runs: int = 0
    end_to_end_ms: tuple[float, float] | None = None
    device_ms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.state:8}{self.engine:8} {self.precision:5} {self.shapes:8}"
        facts = [] if self.build_seconds is None else [f"built in {self.build_seconds:.1f} s"]
        facts += [] if self.parity_psnr_db is None else [f"parity {self.parity_psnr_db:.1f} dB"]
        if self.end_to_end_ms is not None:
            facts.append("{:.2f} ms (p90 {:.2f}, n={})".format(*self.end_to_end_ms, self.runs))
        facts += [f"{name} {value:.3f} ms" for name, value in self.device_ms.items()]
        return f"{head} {', '.join([*facts, self.detail])}"


def run_self_test(model: Path | None, say: Callable[[str], None], report: Report) -> list[Row]:
    """ONNX Runtime on the CPU, and each family of TensorRT in float32 and float16, static and dynamic, at 240 x 160.

    Args:
        model: an ONNX file of this toolkit to test with; by default the default backbone alone, which needs PyTorch.
    """
    models = {read_spec(model)[1].precision: (model, None)} if model is not None else _default_models(say)
    rows = [_onnx_runtime(*models[p], p) for p in models if p in ("fp32", *([] if model is None else [p]))]
    for family in FAMILIES.values():
        try:
            library = import_library(family)
        except DarsrError as error:
            rows.append(Row(family.name, "missing", str(error)))
            continue
        for precision, (file, reference) in models.items():
            for name, shapes in _SHAPES.items():
                say(f"{family.title}, {precision}, {name} ...")
                rows.append(_tensorrt(library, file, reference, precision, name, shapes, report))
    return rows


def _default_models(say: Callable[[str], None]) -> dict[str, tuple[Path, Reference]]:
    """The default backbone at scale 2 in each precision, from the cache, and PyTorch to compare with."""
    from ..artefacts.cache import Source
    from ..inference.tensorrt import exported

    return {p: exported(Source(scale=2), say, p)[:2] for p in PRECISIONS}


def _onnx_runtime(file: Path, reference: Reference | None, precision: str) -> Row:
    if len(installed_runtimes()) != 1:
        return Row("ort", "missing", f"ONNX Runtime is not installed (once): {install('ort')}", precision)
    try:
        with OrtEngine(file) as engine:
            parity = None if reference is None else _parity(engine, reference)
            return Row("ort", "ran", "CPU", precision, "any", None, parity, *_time(engine))
    except DarsrError as error:
        return Row("ort", "failed", str(error), precision)


def _tensorrt(
    library: Library, file: Path, reference: Reference | None, precision: str, name: str, shapes: Shapes, report: Report
) -> Row:
    family = library.family.name
    try:
        where = _where(library)
        with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
            target = Path(folder) / "test.engine"
            compared = reference or reference_from_file(file, precision)
            started = time.perf_counter()
            options = BuildOptions(shapes)
            facts = build_file(file, target, library, options, lambda _: None, report, compared)
            seconds = round(time.perf_counter() - started, 2)
            title = f"{library.family.title} {library.version}"
            if facts.device_parity_psnr_db is None:
                return Row(family, "built", f"{title}, not run: {where}", precision, name, seconds)
            with TrtEngine(target, trust=True) as engine:
                runs, times = _time(engine)
                parts = [engine.time(_picture()) for _ in range(_LEAST_RUNS)]
            device = {part: round(statistics.median(p[part] for p in parts), 4) for part in parts[0]}
            return Row(
                family, "ran", f"{title} on {where}", precision, name, seconds, facts.device_parity_psnr_db, runs, times, device
            )  # fmt: skip
    except DarsrError as error:
        return Row(family, "failed", str(error), precision, name)


def _where(library: Library) -> str:
    """The GPU that is at hand for this family, or why there is none."""
    try:
        name, target = require_gpu(library)
        with Device() as device:
            version = device.driver_version
        return f"{name} ({target}), driver for CUDA {version // 1000}.{version % 1000 // 10}"
    except DarsrError as error:
        if library.family.name == "trt":
            raise
        return error.args[1]


def _picture() -> np.ndarray:
    return natural_noise(HEIGHT, WIDTH)


def _parity(engine: Engine, reference: Reference) -> float:
    from darsr_deploy.images.metrics import psnr

    return round(min(psnr(engine.run(_picture()), reference.run(_picture()), peak=1.0), 200.0), 2)


def _time(engine: Engine) -> tuple[int, tuple[float, float]]:
    """Runs, and their median and 90th percentile in milliseconds; a warm-up comes before, at least ten runs count."""
    lr, times = _picture(), []
    begun = time.perf_counter()
    while time.perf_counter() - begun < _WARM_UP_SECONDS:
        engine.run(lr)
    begun = time.perf_counter()
    while len(times) < _LEAST_RUNS or time.perf_counter() - begun < _SECONDS:
        started = time.perf_counter()
        engine.run(lr)
        times.append(1000 * (time.perf_counter() - started))
    return len(times), (round(statistics.median(times), 3), round(float(np.percentile(times, 90)), 3))
