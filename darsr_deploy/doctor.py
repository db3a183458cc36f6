"""What this machine can run, what is missing for the rest, and the command that brings it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from dataclasses import asdict, dataclass

from .errors import DarsrError
from .ort_engine import import_onnxruntime, installed_runtimes


@dataclass(frozen=True)
class Finding:
    """One part: ``ok``, ``missing`` or ``broken``; what was found; the command that repairs it."""

    part: str
    purpose: str
    state: str
    detail: str
    repair: str = ""


_PARTS = (
    ("numpy", "numpy", "arrays", 'pip install "darsr"'),
    ("opencv", "cv2", "reading and writing images", "pip install opencv-python-headless"),
    ("pillow", "PIL", "reading and writing images", "pip install pillow"),
    ("av", "av", "videos with their audio and timestamps", 'pip install "darsr[video]"'),
    ("torch", "torch", "adapt, eval, demo, backbone", 'pip install "darsr[train]"'),
    ("scikit-image", "skimage", "eval, demo", 'pip install "darsr[train]"'),
    ("onnx", "onnx", "export", 'pip install "darsr[export]"'),
    ("onnxscript", "onnxscript", "export", 'pip install "darsr[export]"'),
    ("spandrel", "spandrel", "backbones from PyTorch weights of others", 'pip install "darsr[zoo]"'),
)


def examine() -> list[Finding]:
    """Look at every part without importing the heavy ones."""
    findings = [
        Finding(
            "python", "everything", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        )
    ]
    findings += [_module(*part) for part in _PARTS]
    findings.append(_runtime())
    findings.append(
        Finding("tensorrt", "infer --engine trt", "missing", "TensorRT engines are not built by this version yet")
    )
    return findings


def can_infer(findings: list[Finding]) -> bool:
    """Whether the default way works: a runtime (ONNX Runtime, or PyTorch) and image files."""
    state = {f.part: f.state for f in findings}
    return state["opencv"] == "ok" and (
        state["onnxruntime"] == "ok" or (state["torch"] == "ok" and state["onnxruntime"] == "missing")
    )


def to_json(findings: list[Finding]) -> list[dict]:
    return [asdict(f) for f in findings]


def _module(part: str, module: str, purpose: str, repair: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(part, purpose, "missing", "not installed", repair)
    if (
        module == "cv2"
    ):  # any distribution of OpenCV will do, so its own version is what counts; it may lack a system library
        try:
            return Finding(part, purpose, "ok", importlib.import_module(module).__version__)
        except ImportError as error:
            return Finding(part, purpose, "broken", str(error), repair)
    return Finding(part, purpose, "ok", importlib.metadata.version(part))


def _runtime() -> Finding:
    purpose = "infer"
    try:
        ort = import_onnxruntime()
    except DarsrError as error:
        state = "broken" if installed_runtimes() else "missing"
        return Finding(
            "onnxruntime",
            purpose,
            state,
            str(error).split(": ", 1)[1].split(";")[0],
            str(error).split(";", 1)[1].strip(),
        )
    return Finding("onnxruntime", purpose, "ok", f"{ort.__version__}: {', '.join(ort.get_available_providers())}")
