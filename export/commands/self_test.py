"""``darsr doctor --self-test``: build, compare and time every engine that this machine has, on the machine itself.

For whoever is the first with a certain GPU: what is printed here belongs into the table of docs/tensorrt.md.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from darsr_deploy.bench.stats import percentile
from darsr_deploy.bench.worker import time_calls
from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.ort import OrtEngine, installed_runtimes
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.images.metrics import psnr
from darsr_deploy.images.synthetic import natural_noise
from darsr_deploy.install import install
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.library import FAMILIES, Library, import_library, require_gpu
from darsr_deploy.trt.parity import Reference, reference_from_file
from darsr_deploy.trt.shapes import Shapes

from ..artefacts.build_engine import BuildOptions, Report
from ..artefacts.engine import Comparison, build_file, compare_with_torch

HEIGHT, WIDTH = 160, 240
PRECISIONS = ("fp32", "fp16")
_SIZE = (HEIGHT, WIDTH)
_SHAPES = {"static": Shapes(_SIZE, _SIZE, _SIZE), "dynamic": Shapes((16, 16), _SIZE, (512, 512))}
_WARM_UP_SECONDS, _SECONDS, _LEAST_RUNS = 0.2, 1.0, 10
log = logging.getLogger("darsr")


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
        """Return all fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.state:8}{self.engine:8} {self.precision:5} {self.shapes:8}"
        facts = [] if self.build_seconds is None else [f"built in {self.build_seconds:.1f} s"]
        facts += [] if self.parity_psnr_db is None else [f"parity {self.parity_psnr_db:.1f} dB"]
        if self.end_to_end_ms is not None:
            facts.append("{:.2f} ms (p90 {:.2f}, n={})".format(*self.end_to_end_ms, self.runs))
        facts += [f"{name} {value:.3f} ms" for name, value in self.device_ms.items()]
        return f"{head} {', '.join([*facts, self.detail])}"


def run_self_test(model: Path | None, report: Report) -> list[Row]:
    """Run ONNX Runtime on the CPU, and each family of TensorRT in float32 and float16, static and dynamic, at 240 x 160.

    Args:
        model: an ONNX file of this toolkit to test with; by default the default backbone alone, which needs PyTorch.
    """
    models = _default_models() if model is None else {read_spec(model)[1].precision: (model, None)}
    rows = [_test_ort(*models[p], p) for p in models if model is not None or p == "fp32"]
    for family in FAMILIES.values():
        try:
            library = import_library(family)
        except DarsrError as error:
            rows.append(Row(family.name, "missing", str(error)))
            continue
        for precision, (file, reference) in models.items():
            for shapes in _SHAPES:
                log.info("%s, %s, %s ...", family.title, precision, shapes)
                row = {"precision": precision, "shapes": shapes}
                compared = reference or reference_from_file(file, precision)
                try:
                    row |= _test_tensorrt(library, file, BuildOptions(_SHAPES[shapes]), compared, report)
                except DarsrError as error:
                    row |= {"state": "failed", "detail": str(error)}
                rows.append(Row(family.name, **row))
    return rows


def _default_models() -> dict[str, tuple[Path, Reference]]:
    """Export the default backbone at scale 2 in each precision, with PyTorch to compare with."""
    from ..artefacts.cache import resolve_model
    from ..artefacts.subject import Source, Subject

    subject = Subject(Source(scale=2))
    return {p: (resolve_model(subject, p), compare_with_torch(subject).reference) for p in PRECISIONS}


def _test_ort(file: Path, reference: Reference | None, precision: str) -> Row:
    if len(installed_runtimes()) != 1:
        return Row("ort", "missing", f"ONNX Runtime is not installed (once): {install('ort')}", precision)
    lr, parity = natural_noise(*_SIZE), None
    try:
        with OrtEngine(file) as engine:
            if reference is not None:
                parity = round(min(psnr(engine.run(lr), reference.run(lr), peak=1.0), 200.0), 2)
            return Row("ort", "ran", "CPU", precision, "any", parity_psnr_db=parity, **_time(engine))
    except DarsrError as error:
        return Row("ort", "failed", str(error), precision)


def _test_tensorrt(
    library: Library, file: Path, options: BuildOptions, reference: Reference | None, report: Report
) -> dict:
    """Build, compare and time one engine; returns fields of its row."""
    title, where = f"{library.family.title} {library.version}", _where(library)
    with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
        target, started = Path(folder) / "test.engine", time.perf_counter()
        facts = build_file(file, target, library, options, Comparison(reference), report=report)
        row = {"build_seconds": round(time.perf_counter() - started, 2), "parity_psnr_db": facts.device_parity_psnr_db}
        if facts.device_parity_psnr_db is None:
            return row | {"state": "built", "detail": f"{title}, not run: {where}"}
        with TrtEngine(target, trust=True) as engine:
            row |= {"state": "ran", "detail": f"{title} on {where}", **_time(engine)}
            parts = [engine.time(natural_noise(*_SIZE)) for _ in range(_LEAST_RUNS)]
    return row | {"device_ms": {part: round(percentile([p[part] for p in parts], 50), 4) for part in parts[0]}}


def _where(library: Library) -> str:
    """Describe the GPU for this family, or say why there is none."""
    try:
        name, target = require_gpu(library)
        with Device() as device:
            version = device.driver_version
        return f"{name} ({target}), driver for CUDA {version // 1000}.{version % 1000 // 10}"
    except DarsrError as error:
        if library.family.name == "trt":
            raise
        return error.args[1]


def _time(engine: Engine) -> dict:
    """Time runs behind a warm-up; returns fields of a row."""
    lr = natural_noise(*_SIZE)
    time_calls(lambda: engine.run(lr), _WARM_UP_SECONDS, 0)
    times = time_calls(lambda: engine.run(lr), _SECONDS, _LEAST_RUNS)
    return {"runs": len(times), "end_to_end_ms": (round(percentile(times, 50), 3), round(percentile(times, 90), 3))}
