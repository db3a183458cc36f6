"""Which rows a bench has: every engine, provider, precision and form, each with what opens it or why it cannot run here."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from darsr_deploy.bench.worker import Row
from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.ort import OrtEngine, import_onnxruntime
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.coefficients import read_coefficients
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import METADATA_KEY, PRECISIONS, ModelSpec, declared_precision
from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.install import install
from darsr_deploy.machine import gpu as nvml

from ..artefacts.cache import Source, exported_model, load
from ..inference.session import ENGINES, open_engine

Say = Callable[[str], None]
# Where each engine can compute.
PLACES = {"torch": ("cpu", "cuda"), "ort": ("cpu", "cuda"), "trt": ("cuda",), "trt-rtx": ("cuda",)}
_MODULES = {"trt": ("tensorrt",), "trt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_FORMS = {"network": ("network", "filters", "global")}  # of an adapter whose correction is of this kind


@dataclass(frozen=True)
class Choice:
    """What of everything is wanted; an empty tuple is all."""

    engines: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {"engine": PLACES, "provider": ("cpu", "cuda"), "precision": PRECISIONS}
        known["form"] = ("none", "network", "filters", "global")
        for kind, names in known.items():
            for name in getattr(self, f"{kind}s"):
                if name not in names:
                    raise DarsrError(f"{kind} {name}", "is not known", f"choose among {', '.join(names)}")

    def places(self) -> list[tuple[str, str]]:
        """``(engine, provider)`` of all that is wanted."""
        return [
            (engine, provider)
            for engine, providers in PLACES.items()
            for provider in providers
            if engine in (self.engines or PLACES) and provider in (self.providers or providers)
        ]


def of_model(model: Path, choice: Choice, threads: int) -> list[Row]:
    """Rows of a model file, which has a precision and a form of its own. PyTorch is not needed.

    Raises:
        DarsrError: another precision or form was asked for.
    """
    spec, rows = spec_of(model), []
    for what, own, asked in (("precision", spec.precision, choice.precisions), ("form", spec.form, choice.forms)):
        if asked and own not in asked:
            why = f"is a model of {what} {own}, asked for {', '.join(asked)}"
            raise DarsrError(str(model), why, f"export it with --{what} {asked[0]}, or bench the adapter")
    for engine, provider in choice.places():
        why = "a model file runs in ONNX Runtime or TensorRT, not in PyTorch" if engine == "torch" else None
        why = why or unavailable(engine, provider)
        rows.append(
            Row(engine, provider, None, None, reason=why) if why else _row(model, spec, engine, provider, threads)
        )
    return rows


def of_source(source: Source, image: np.ndarray, choice: Choice, threads: int, say: Say) -> list[Row]:
    """Rows of an adapter, or of a backbone alone. What is needed of ONNX files is exported, or taken from the cache.

    Args:
        image: uint8 H x W x 3 that will be run; form ``filters`` is for the adapted image alone.
    """
    own, digest = _kind(source)
    forms = [form for form in _FORMS.get(own, (own,)) if form in (choice.forms or (form,))]
    precisions = [p for p in PRECISIONS if p in (choice.precisions or PRECISIONS)]
    made: dict[tuple[str, str], Row | DarsrError] = {}
    rows = []
    for engine, provider in choice.places():
        why = unavailable(engine, provider)
        if why:
            rows.append(Row(engine, provider, None, None, reason=why))
        elif engine == "torch":
            if own in forms and "fp32" in precisions:
                opener = partial(open_torch, source, provider, threads)
                correction = partial(torch_correction, source, provider) if own != "none" else None
                rows.append(Row(engine, provider, "fp32", own, opener, correction, {"model_sha256": digest}))
        else:
            rows += [
                _exported(source, image, form, precision, engine, provider, threads, made, say)
                for form in forms
                for precision in precisions
            ]
    return _with_cost(rows)


def references(source: Source, image: np.ndarray, rows: list[Row]) -> dict[str, np.ndarray]:
    """What PyTorch makes of the image in float32, 1 x 3 x sH x sW, in the form of each row that runs."""
    from ..folding.forms import take_form
    from ..samples import gather

    forms = {row.form for row in rows if row.opener is not None}
    pipeline, samples = load(source)[0], gather(source.adapter)
    lr = to_tensor(image)
    found = {}
    for form in forms:
        formed = take_form(pipeline, form, samples)
        found[form] = formed.run(lr, formed.coefficients)
    return found


def unavailable(engine: str, provider: str) -> str | None:
    """Why an engine cannot run at all, with the way out; None where nothing speaks against it."""
    if engine not in ENGINES:
        return f"this version has no engine {engine}"
    if engine == "torch":
        if importlib.util.find_spec("torch") is None:
            return f"PyTorch is not installed: {install('train')}"
        import torch

        return "PyTorch sees no CUDA device here" if provider == "cuda" and not torch.cuda.is_available() else None
    if engine == "ort":
        try:
            available = import_onnxruntime().get_available_providers()
        except DarsrError as error:
            return str(error)
        lacks = provider == "cuda" and "CUDAExecutionProvider" not in available
        return f"the installed ONNX Runtime has no CUDA (it has {', '.join(available)})" if lacks else None
    if not any(importlib.util.find_spec(module) for module in _MODULES[engine]):
        name = {"trt": "TensorRT", "trt-rtx": "TensorRT for RTX"}[engine]
        return f"{name} is not installed: {install(engine)}"
    return None if nvml.driver_library() else "there is no NVIDIA driver (libcuda.so.1)"


def spec_of(model: Path) -> ModelSpec:
    """What a model file says of itself, one that ONNX Runtime cannot run on this processor included.

    Raises:
        DarsrError: no such file, or not one of this toolkit.
    """
    try:
        with OrtEngine(model) as engine:
            return engine.spec
    except DarsrError:
        known = model.is_file() and declared_precision(model.read_bytes())
        if not known or importlib.util.find_spec("onnx") is None:
            raise
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    return ModelSpec.from_json(metadata.get(METADATA_KEY, ""), str(model))


def open_model(model: Path, engine: str, provider: str, threads: int) -> Engine:
    """Called in the row's own process."""
    if engine == "ort":
        return OrtEngine(model, provider, threads)
    from darsr_deploy.console.command import progress

    return open_engine(Source(model=model), engine, provider, progress=progress)


def open_torch(source: Source, provider: str, threads: int) -> Engine:
    """Called in the row's own process."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return open_engine(source, "torch", provider)


def torch_correction(source: Source, provider: str) -> Callable[[np.ndarray], object]:
    """The correction alone, in PyTorch."""
    import torch

    correction = load(source, provider)[0].correction

    @torch.inference_mode()
    def run(lr: np.ndarray) -> object:
        return correction(torch.from_numpy(lr).to(provider, memory_format=torch.channels_last)).cpu()

    return run


def ort_correction(model: Path, provider: str, threads: int) -> Callable[[np.ndarray], object] | None:
    """The part of a model up to its correction filter, in ONNX Runtime; None where it cannot be cut out."""
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    proto = onnx.load(model)
    filters = [node for node in proto.graph.node if node.op_type == "CorrectionFilter"]
    if len(filters) != 1:
        return None
    wanted, kept = {filters[0].output[0]}, []
    for node in reversed(proto.graph.node):  # a graph's nodes are in the order of their execution
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del proto.graph.node[:], proto.graph.output[:]
    proto.graph.node.extend(kept)
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(filters[0].output[0]))
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=[names[provider]])
    spec = spec_of(model)
    given = {"coeff": read_coefficients(model, spec)} if spec.form == "filters" else {}
    return lambda lr: session.run(None, {"lr": lr} | given)


def _kind(source: Source) -> tuple[str, str]:
    """Form of the source as it is, and the sha256 of its file (of a backbone alone: of its weights)."""
    spec = load(source)[1]
    return spec.form, spec.adapter_sha256 or spec.backbone_sha256


def _exported(
    source: Source,
    image: np.ndarray,
    form: str,
    precision: str,
    engine: str,
    provider: str,
    threads: int,
    made: dict,
    say: Say,
) -> Row:
    """The row of one exported file; each file is made once, whatever runs it."""
    if engine == "ort" and provider == "cpu" and precision == "bf16":  # said before the seconds that an export takes
        return Row(engine, provider, precision, form, reason="ONNX Runtime has no bfloat16 arithmetic on a CPU")
    if (form, precision) not in made:
        made[form, precision] = _make(source, image, form, precision, say)
    path, build_ms, why = made[form, precision]
    if why:
        return Row(engine, provider, precision, form, reason=why)
    return _row(path, spec_of(path), engine, provider, threads, build_ms)


def _make(
    source: Source, image: np.ndarray, form: str, precision: str, say: Say
) -> tuple[Path | None, float | None, str]:
    """``(file, milliseconds if it was made now, why it could not be made)``."""
    told: list[str] = []
    started = time.perf_counter()
    try:
        if form == "filters":
            _require_adapted_image(source, image)
        path = exported_model(source, precision, form, told.append)
    except DarsrError as error:
        return None, None, str(error)
    for text in told:
        say(f"{text}: {form} {precision}")
    return path, 1e3 * (time.perf_counter() - started) if told else None, ""


def _require_adapted_image(source: Source, image: np.ndarray) -> None:
    from ..samples import gather

    photo = gather(source.adapter).photo
    if photo is not None and not np.array_equal(photo, to_tensor(image)):
        raise DarsrError(
            "form filters", "holds the filters of the adapted image alone", "leave out --image and --shape"
        )


def _row(model: Path, spec: ModelSpec, engine: str, provider: str, threads: int, build_ms: float | None = None) -> Row:
    data = model.read_bytes()
    facts = {
        "model_sha256": hash_bytes(data),
        "model_bytes": len(data),
        "macs_per_lr_pixel": spec.macs_per_lr_pixel,
        "operator_bytes_per_lr_pixel": _operator_bytes(data),
        "parity_psnr_db": spec.parity_psnr_db,
        "psnr_from_network_db": spec.psnr_from_network_db,
    }
    return Row(
        engine,
        provider,
        spec.precision,
        spec.form,
        partial(open_model, model, engine, provider, threads),
        partial(ort_correction, model, provider, threads) if engine == "ort" else None,
        facts,
        build_ms,
        one_image=spec.form == "filters",
    )


def _operator_bytes(data: bytes) -> int | None:
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    from darsr_train.backbones.onnx_cost import bytes_moved

    return bytes_moved(onnx.load_from_string(data))


def _with_cost(rows: list[Row]) -> list[Row]:
    """PyTorch computes what the float32 file of its form does, so that file's cost is its own."""
    keys = ("macs_per_lr_pixel", "operator_bytes_per_lr_pixel")
    costs = {
        row.form: {key: row.facts[key] for key in keys}
        for row in rows
        if row.precision == "fp32" and row.engine != "torch" and row.opener
    }
    for row in rows:
        if row.engine == "torch" and row.opener:
            row.facts.update(costs.get(row.form, {}))
    return rows
