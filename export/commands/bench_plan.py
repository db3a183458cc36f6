"""Plan the rows of a bench: every engine, provider, precision and form, each with its opener or why it cannot run."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from darsr_deploy.bench.worker import Row
from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.ort import import_onnxruntime
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.coefficients import read_coefficients
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import PRECISIONS
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.install import install
from darsr_deploy.machine import gpu as nvml

from ..artefacts.cache import cached_model_path, resolve_model
from ..artefacts.engine import compare_with_torch
from ..artefacts.subject import Source, Subject
from ..inference.session import ENGINES, open_engine
from ..onnx_graphs.opset import CORRECTED

# Where each engine can compute.
PLACES = {"torch": ("cpu", "cuda"), "ort": ("cpu", "cuda"), "trt": ("cuda",), "trt-rtx": ("cuda",)}
_MODULES = {"trt": ("tensorrt",), "trt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_FORMS = {"network": ("network", "filters", "global")}  # of an adapter whose correction is of this kind


@dataclass(frozen=True)
class Choice:
    """Selected engines, providers, precisions and forms; an empty tuple selects all."""

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
        """Return ``(engine, provider)`` of everything selected."""
        return [
            (engine, provider)
            for engine, providers in PLACES.items()
            for provider in providers
            if engine in (self.engines or PLACES) and provider in (self.providers or providers)
        ]


def of_model(model: Path, choice: Choice, threads: int) -> list[Row]:
    """Plan rows of a model file, which has its own precision and form; PyTorch is not needed.

    Raises:
        DarsrError: another precision or form was asked for.
    """
    spec, rows = read_spec(model)[1], []
    for what, own, asked in (("precision", spec.precision, choice.precisions), ("form", spec.form, choice.forms)):
        if asked and own not in asked:
            why = f"is a model of {what} {own}, asked for {', '.join(asked)}"
            raise DarsrError(str(model), why, f"export it with --{what} {asked[0]}, or bench the adapter")
    for engine, provider in choice.places():
        why = "a model file runs in ONNX Runtime or TensorRT, not in PyTorch" if engine == "torch" else None
        why = why or unavailable(engine, provider)
        rows.append(Row(engine, provider, None, None, reason=why) if why else _row(model, engine, provider, threads))
    return rows


def of_subject(subject: Subject, image: np.ndarray, choice: Choice, threads: int) -> list[Row]:
    """Plan rows of an adapter or a backbone alone; ONNX files come from the cache or are exported now.

    Args:
        image: uint8 H x W x 3 that will be run; form ``filters`` is for the adapted image alone.
    """
    own, source = subject.spec.form, subject.source
    digest = subject.spec.adapter_sha256 or subject.spec.backbone_sha256
    forms = [form for form in _FORMS.get(own, (own,)) if form in (choice.forms or (form,))]
    precisions = [p for p in PRECISIONS if p in (choice.precisions or PRECISIONS)]
    make = functools.cache(partial(_make, subject, image))  # each file once, whatever runs it
    rows = []
    for engine, provider in choice.places():
        why = unavailable(engine, provider)
        if why:
            rows.append(Row(engine, provider, None, None, reason=why))
        elif engine == "torch":
            if own in forms and "fp32" in precisions:
                opener = partial(open_engine, source, "torch", provider, threads=threads)
                correction = partial(torch_correction, source, provider) if own != "none" else None
                rows.append(Row(engine, provider, "fp32", own, opener, correction, {"model_sha256": digest}))
        else:
            for form, precision in itertools.product(forms, precisions):
                if (engine, provider, precision) == ("ort", "cpu", "bf16"):  # before the seconds that an export takes
                    made = "ONNX Runtime has no bfloat16 arithmetic on a CPU"
                else:
                    made = make(form, precision)
                if isinstance(made, str):
                    rows.append(Row(engine, provider, precision, form, reason=made))
                else:
                    rows.append(_row(made[0], engine, provider, threads, made[1]))
    return _with_cost(rows)


def references(subject: Subject, image: np.ndarray, rows: list[Row]) -> dict[str, np.ndarray]:
    """Compute in PyTorch, in float32, the form of each row that runs: 1 x 3 x sH x sW."""
    lr = to_tensor(image)
    forms = {row.form for row in rows if row.opener is not None}
    return {form: compare_with_torch(subject, form).reference.run(lr) for form in forms}


def unavailable(engine: str, provider: str) -> str | None:
    """Return why an engine cannot run at all, and a hint; None if it can."""
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


def open_model(model: Path, engine: str, provider: str, threads: int) -> Engine:
    """Open a model file in the row's own process."""
    from darsr_deploy.console.command import progress

    return open_engine(Source(model=model), engine, provider, threads=threads, progress=progress)


def torch_correction(source: Source, provider: str) -> Callable[[np.ndarray], object]:
    """Return a function that runs the correction alone, in PyTorch."""
    import torch

    correction = Subject(source, provider).pipeline.correction

    @torch.inference_mode()
    def run(lr: np.ndarray) -> object:
        return correction(torch.from_numpy(lr).to(provider, memory_format=torch.channels_last)).cpu()

    return run


def ort_correction(model: Path, provider: str, threads: int) -> Callable[[np.ndarray], object] | None:
    """Return a function that runs a model up to its correction filter in ONNX Runtime; None if it cannot be cut out."""
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    proto = onnx.load(model)
    if not any(CORRECTED in node.output for node in proto.graph.node):
        return None
    wanted, kept = {CORRECTED}, []
    for node in reversed(proto.graph.node):  # a graph's nodes are in the order of their execution
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del proto.graph.node[:], proto.graph.output[:]
    proto.graph.node.extend(kept)
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(CORRECTED))
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=[names[provider]])
    spec = read_spec(model)[1]
    given = {"coeff": read_coefficients(model, spec)} if spec.form == "filters" else {}
    return lambda lr: session.run(None, {"lr": lr} | given)


def _make(subject: Subject, image: np.ndarray, form: str, precision: str) -> tuple[Path, float | None] | str:
    """Return ``(file, milliseconds if it was made now)``, or why it cannot be made."""
    started = time.perf_counter()
    try:
        photo = subject.samples.photo
        if form == "filters" and photo is not None and not np.array_equal(photo, to_tensor(image)):
            raise DarsrError(
                "form filters", "holds the filters of the adapted image alone", "leave out --image and --shape"
            )
        was_there = cached_model_path(subject, precision, form).is_file()
        path = resolve_model(subject, precision, form)
    except DarsrError as error:
        return str(error)
    return path, None if was_there else 1e3 * (time.perf_counter() - started)


def _row(model: Path, engine: str, provider: str, threads: int, build_ms: float | None = None) -> Row:
    data, spec = read_spec(model)
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
    """Give PyTorch's rows the cost of the float32 file of their form: they compute the same."""
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
