"""ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DarsrError, OutOfMemory
from ..files.coefficients import read_coefficients
from ..files.kinds import another_kind
from ..files.model_spec import (
    METADATA_KEY,
    ModelSpec,
    declared_precision,
)
from ..files.onnx_bytes import check_seal
from ..install import install, pip
from .base import check_input

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def repair() -> str:
    """Return the command that leaves one of the two distributions."""
    return f"{pip()} uninstall -y {' '.join(_DISTRIBUTIONS)} && {install('gpu')} (or {install('ort')})"


def installed_runtimes() -> list[str]:
    """Return the distributions of ONNX Runtime that pip knows of; two of them overwrite each other's files."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def import_onnxruntime():
    """Import ONNX Runtime with its telemetry off. No other function of this toolkit imports it.

    Raises:
        DarsrError: not installed, both distributions installed, or an import that fails.
    """
    # Read when its library is loaded: later it has a device id and an event database on the disk already.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    found = installed_runtimes()
    if len(found) == 2:
        raise DarsrError(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            f"repair: {repair()}",
        )
    try:
        import onnxruntime
    except ImportError as error:
        why = f"cannot be imported ({error})" if found else "is not installed"
        raise DarsrError(
            "onnxruntime", why, f"install it: {install('ort')} (on CUDA: {install('gpu')}), or use --engine torch"
        ) from error
    return onnxruntime


def open_session(
    model: bytes | str | Path, what: str | Path, provider: str = "cpu", threads: int = 0, *, brief: bool = False
) -> Any:
    """Open an ONNX Runtime session on one provider.

    Args:
        model: a file, or its bytes.
        what: its name in errors.
        provider: ``cpu`` or ``cuda``. The one asked for runs the whole graph, or opening fails: never silently another.
        threads: 0 lets ONNX Runtime choose.
        brief: it runs a few times among other work: its threads sleep between runs, and its memory is given back after each.

    Raises:
        DarsrError: the provider is not there, or ONNX Runtime cannot load the model.
    """
    ort = import_onnxruntime()
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(provider)
    if wanted is None:
        raise DarsrError(f"provider {provider}", "is not known", "choose cpu or cuda")
    if wanted not in ort.get_available_providers():
        raise DarsrError(
            f"provider {provider}",
            f"is not part of the installed ONNX Runtime (it has {', '.join(ort.get_available_providers())})",
            f"install it: {pip()} uninstall -y onnxruntime && {install('gpu')}",
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if brief:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if not isinstance(model, bytes) and Path(model).is_file():
        check_seal(what, Path(model).read_bytes())
    try:
        session = _start(ort, model if isinstance(model, bytes) else str(model), options, wanted)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise DarsrError(str(what), "there is no such file", "make it with darsr export") from error
        if not isinstance(model, bytes) and (another := another_kind(model, "model")):
            raise another from error
        precision = declared_precision(model if isinstance(model, bytes) else Path(model).read_bytes())
        if type(error).__name__ == "NotImplemented" and precision:
            raise DarsrError(
                str(what),
                f"{wanted} of ONNX Runtime cannot run precision {precision}",
                "export another precision, or run it on a device that has it",
            ) from error
        raise DarsrError(
            str(what),
            f"ONNX Runtime cannot load it ({str(error).splitlines()[0][:200]})",
            "export it again with darsr export",
        ) from error
    if wanted not in session.get_providers():  # its library could not be loaded, and another took over
        raise DarsrError(
            f"provider {provider}", f"ONNX Runtime could not start {wanted}", "check the driver with nvidia-smi"
        )
    return session


def run_session(session: Any, output: str, feeds: dict[str, np.ndarray], what: str) -> np.ndarray:
    """Run a session for one of its outputs; the first input is an image, N x C x H x W.

    Raises:
        OutOfMemory: it could not have the memory.
        DarsrError: any other failure.
    """
    height, width = next(iter(feeds.values())).shape[2:4]
    options = sys.modules["onnxruntime"].RunOptions()  # which is imported: there is a session
    if height * width > _KEPT_PIXELS:
        arena = "gpu:0" if session.get_providers()[0].startswith("CUDA") else "cpu:0"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
    try:
        return session.run([output], feeds, options)[0]
    except Exception as error:  # such as a backbone of others that wants more pixels
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
            raise OutOfMemory(
                what, f"no memory for {width}x{height} pixels at a time", "use a smaller --tile"
            ) from error
        why = str(error).splitlines()[0][:200]
        raise DarsrError(
            what, f"ONNX Runtime cannot run it on {width}x{height} pixels ({why})", "use --engine torch"
        ) from error


# Every session keeps the memory of its largest run for the next one, and gives none of it to the other sessions. Worth it
# for small images; for large ones it is gigabytes, and getting it anew hardly shows in the time (docs/tiles-and-bundles.md).
_KEPT_PIXELS = 500_000
# What ONNX Runtime's allocators say, on CPU and on CUDA.
_NO_MEMORY = ("bad_alloc", "Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class OrtEngine:
    """A model file in ONNX Runtime. See :class:`.base.Engine` and :class:`.base.Tileable`.

    Args:
        model: an ``.onnx`` file written by ``darsr export``.
        provider: as :func:`open_session`.
        threads: 0 lets ONNX Runtime choose.
        coefficients: of a model of form ``filters``, 1 x 13 x H x W, instead of the file beside it.
    """

    name = "ort"
    stages = 0

    def __init__(
        self, model: str | Path, provider: str = "cpu", threads: int = 0, coefficients: np.ndarray | None = None
    ) -> None:
        self._session = open_session(model, model, provider, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.spec = ModelSpec.from_json(metadata.get(METADATA_KEY, ""), str(model))
        self.provider = self._session.get_providers()[0]
        self._model, self._coefficients = str(model), coefficients
        self.locality = self.spec.locality()
        if self.spec.form == "filters" and coefficients is None:
            self._coefficients = read_coefficients(model, self.spec)

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge images; see :meth:`.base.Engine.run`."""
        self.check_size(lr)
        feeds = {"lr": check_input(lr)}
        if self._coefficients is not None:
            feeds["coeff"] = self._coefficients
        return run_session(self._session, "sr", feeds, self._model)

    def check_size(self, lr: np.ndarray) -> None:
        """Refuse another image than the one that a model of form ``filters`` is for.

        Raises:
            DarsrError: an image of another size.
        """
        if self._coefficients is not None:
            (n, _, height, width), (rows, columns) = lr.shape, self._coefficients.shape[2:]
            if (n, height, width) != (1, rows, columns):
                raise DarsrError(
                    self._model,
                    f"holds the filters of one image of {columns}x{rows} pixels, and this is {n} of {width}x{height}",
                    "export the form network for other images",
                )

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """Enlarge a tile; see :meth:`.base.Tileable.run_tile`."""
        feeds = {"lr": check_input(lr)}
        if self._coefficients is not None:
            feeds["coeff"] = np.ascontiguousarray(self._coefficients[:, :, rows, columns])
        return run_session(self._session, "sr", feeds, self._model)

    def __enter__(self) -> OrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None


def _start(ort: Any, model: bytes | str, options: Any, provider: str) -> Any:
    """Start a session; where a provider other than the CPU fails on the local function, with its body inlined."""
    try:
        return ort.InferenceSession(model, options, providers=[provider])
    except Exception:
        inlined = None if provider == "CPUExecutionProvider" else _inline_functions(model)
        if inlined is None:
            raise
        return ort.InferenceSession(inlined, options, providers=[provider])


def _inline_functions(model: bytes | str) -> bytes | None:
    """Return the model with its local functions inlined; None where it has none, or onnx is not installed."""
    if importlib.util.find_spec("onnx") is None or not (isinstance(model, bytes) or Path(model).is_file()):
        return None
    import onnx
    from onnx import inliner

    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    return inliner.inline_local_functions(proto).SerializeToString() if proto.functions else None
