"""ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np

from .container import read_container
from .engine import check_input
from .errors import DarsrError
from .seal import check_seal
from .spec import (
    COEFFICIENTS_KIND,
    COEFFICIENTS_VERSION,
    METADATA_KEY,
    ModelSpec,
    coefficients_path,
    declared_precision,
)

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu (or onnxruntime)"


def installed_runtimes() -> list[str]:
    """Distributions of ONNX Runtime that pip knows of; two of them overwrite each other's files."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def import_onnxruntime():
    """Import ONNX Runtime, or say in one line what is missing or broken.

    Raises:
        DarsrError: not installed, both distributions installed, or an import that fails.
    """
    found = installed_runtimes()
    if len(found) == 2:
        raise DarsrError(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            f"repair: {REPAIR}",
        )
    try:
        import onnxruntime
    except ImportError as error:
        why = f"cannot be imported ({error})" if found else "is not installed"
        raise DarsrError(
            "onnxruntime", why, 'install it: pip install "darsr[ort]" (or "darsr[gpu]"), or use --engine torch'
        ) from error
    return onnxruntime


class OrtEngine:
    """A model file in ONNX Runtime. See :class:`.engine.Engine`.

    Args:
        model: an ``.onnx`` file written by ``darsr export``.
        provider: ``cpu`` or ``cuda``. The one asked for runs the whole graph, or opening fails: never silently another.
        threads: 0 lets ONNX Runtime choose.
        coefficients: of a model of form ``filters``, 1 x 13 x H x W, instead of the file beside it.
    """

    name = "ort"

    def __init__(
        self, model: str | Path, provider: str = "cpu", threads: int = 0, coefficients: np.ndarray | None = None
    ) -> None:
        ort = import_onnxruntime()
        wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(provider)
        if wanted is None:
            raise DarsrError(f"provider {provider}", "is not known", "choose cpu or cuda")
        if wanted not in ort.get_available_providers():
            raise DarsrError(
                f"provider {provider}",
                f"is not part of the installed ONNX Runtime (it has {', '.join(ort.get_available_providers())})",
                'install it: pip uninstall -y onnxruntime && pip install "darsr[gpu]"',
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        if provider != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if Path(model).is_file():
            check_seal(model, Path(model).read_bytes())
        try:
            self._session = ort.InferenceSession(str(model), options, providers=[wanted])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
            if not Path(model).is_file():
                raise DarsrError(str(model), "there is no such file", "make it with darsr export") from error
            precision = declared_precision(Path(model).read_bytes())
            if type(error).__name__ == "NotImplemented" and precision:
                raise DarsrError(
                    str(model),
                    f"{wanted} of ONNX Runtime cannot run precision {precision}",
                    "export another precision, or run it on a device that has it",
                ) from error
            raise DarsrError(
                str(model),
                f"ONNX Runtime cannot load it ({str(error).splitlines()[0][:200]})",
                "export it again with darsr export",
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.spec = ModelSpec.from_json(metadata.get(METADATA_KEY, ""), str(model))
        self.provider = wanted
        self._model, self._coefficients = str(model), coefficients
        if self.spec.form == "filters" and coefficients is None:
            self._coefficients = read_coefficients(model, self.spec)

    def run(self, lr: np.ndarray) -> np.ndarray:
        feeds = {"lr": check_input(lr)}
        if self._coefficients is not None:
            feeds["coeff"] = self._coefficients
            (n, _, height, width), (rows, columns) = lr.shape, self._coefficients.shape[2:]
            if (n, height, width) != (1, rows, columns):
                raise DarsrError(
                    self._model,
                    f"holds the filters of one image of {columns}x{rows} pixels, and this is {n} of {width}x{height}",
                    "export the form network for other images",
                )
        try:
            return self._session.run(["sr"], feeds)[0]
        except Exception as error:  # such as a backbone of others that wants more pixels
            why = str(error).splitlines()[0][:200]
            raise DarsrError(
                self._model,
                f"ONNX Runtime cannot run it on {lr.shape[3]}x{lr.shape[2]} pixels ({why})",
                "use --engine torch",
            ) from error

    def __enter__(self) -> OrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None


def read_coefficients(model: str | Path, spec: ModelSpec) -> np.ndarray:
    """The coefficients beside a model of form ``filters``: float32 1 x 13 x H x W.

    Raises:
        DarsrError: the file is missing, damaged, or was written for another model.
    """
    path = coefficients_path(model)
    _, arrays, digest = read_container(path, COEFFICIENTS_KIND, COEFFICIENTS_VERSION, f"copy it from beside {model}")
    coefficients = arrays.get("coeff", np.empty(0))
    if digest != spec.coefficients_sha256 or coefficients.shape != (1, 13, spec.source_height, spec.source_width):
        raise DarsrError(str(path), f"does not belong to {model}", "export both again")
    return coefficients
