"""What this machine can run, what is missing for the rest, and the command that brings it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ..engines.ort import import_onnxruntime, installed_runtimes
from ..errors import DarsrError
from ..files.folders import cache_folder, data_folder
from ..install import install, pip
from . import facts as machine
from . import gpu as nvml


@dataclass(frozen=True)
class Finding:
    """One part: ``ok``, ``missing`` or ``broken``; what was found; the command that repairs it."""

    part: str
    purpose: str
    state: str
    detail: str
    repair: str = ""


# part, module, what it is for, the extra that brings it; without one, the distribution
_PARTS: tuple[tuple[str, str, str, str], ...] = (
    ("numpy", "numpy", "arrays", "numpy"),
    ("opencv", "cv2", "reading and writing images", "opencv-python-headless"),
    ("pillow", "PIL", "reading and writing images", "pillow"),
    ("av", "av", "videos with their audio and timestamps", "video"),
    ("torch", "torch", "eval, demo, backbone, report, and adapt with another backbone or a fit", "train"),
    ("scikit-image", "skimage", "eval, demo", "train"),
    ("onnx", "onnx", "export", "export"),
    ("onnxscript", "onnxscript", "export", "export"),
    ("starlette", "starlette", "the page of darsr ui", "ui"),
    ("uvicorn", "uvicorn", "the page of darsr ui", "ui"),
    ("spandrel", "spandrel", "backbones from PyTorch weights of others", "zoo"),
    ("nvidia-ml-py", "pynvml", "bench: memory, power and clocks of an NVIDIA GPU", "bench"),
)
_TENSORRT = (("tensorrt", ("tensorrt",)), ("tensorrt_rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings")))
_IMAGES = (".png", ".jpg", ".webp", ".tiff", ".bmp")
_VIDEO = ("h264", "hevc", "vp9", "av1")
_BASE = ("numpy", "opencv", "pillow")  # parts that no extra brings
# task, parts that it needs beside those of infer
_TASKS = (
    ("adapt", ()),
    ("infer", ()),
    ("export", ("torch", "onnx", "onnxscript")),
    ("video", ("video",)),
)
_FOR_GPU = ("nvidia driver", "nvidia-ml-py", *(part for part, _ in _TENSORRT))
_NO_GPU = "no NVIDIA GPU was found"


def examine(root: Path = Path("/")) -> list[Finding]:
    """Examine every part without importing the heavy ones.

    Args:
        root: where the files of the system lie (tests give a tree of their own).
    """
    facts = machine.facts(root)
    findings = [
        Finding(
            "python", "everything", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        )
    ]
    findings += [_module(*part) for part in _PARTS]
    runtime = _runtime()
    findings += [runtime, *_gpu(facts, runtime, root), *_jetson(facts), *_tensorrt(facts)]
    findings += [_images(), _video(), *_folders()]
    return findings


def can_infer(findings: list[Finding]) -> bool:
    """Return whether the default way works: a runtime (ONNX Runtime or PyTorch), image files, a cache for what is exported.

    Without PyTorch nothing is exported here, so that a device whose cache folder is read-only works.
    """
    state = {f.part: f.state for f in findings}
    cached = state["cache"] == "ok" or state["torch"] == "missing"
    return (
        state["opencv"] == "ok"
        and cached
        and (state["onnxruntime"] == "ok" or (state["torch"] == "ok" and state["onnxruntime"] == "missing"))
    )


def summarize(findings: list[Finding]) -> list[tuple[str, str]]:
    """Return each task with ``ok``, or with what it needs and the command that brings it."""
    of = {f.part: f for f in findings}
    basis = () if can_infer(findings) else ("opencv", "onnxruntime", "cache")
    rows = []
    for task, parts in _TASKS:
        lacking = [f for f in (of[part] for part in (*parts, *basis)) if f.state != "ok"]
        rows.append((task, _say_need(lacking[0]) if lacking else "ok"))
    families = [of[part] for part, _ in _TENSORRT if part in of]
    installed = [f.part for f in families if f.state == "ok"]
    if of["nvidia driver"].state != "ok":
        trt = "no NVIDIA GPU here" if of["nvidia driver"].detail == _NO_GPU else _say_need(of["nvidia driver"])
    else:
        trt = f"ok ({', '.join(installed)})" if installed else _say_need(families[0])
    return [*rows, ("TensorRT", trt)]


def without_hardware(findings: list[Finding]) -> list[Finding]:
    """Return what is missing for hardware that is not here, which nobody has to install."""
    here = all(f.detail != _NO_GPU for f in findings if f.part == "nvidia driver")
    return [] if here else [f for f in findings if f.part in _FOR_GPU and f.state == "missing"]


def _say_need(finding: Finding) -> str:
    verb = f"{finding.part} is broken" if finding.state == "broken" else f"needs {finding.part}"
    return f"{verb}: {finding.repair or finding.detail}"


def to_json(findings: list[Finding]) -> list[dict]:
    """Return the findings as JSON values."""
    return [asdict(f) for f in findings]


def _module(part: str, module: str, purpose: str, bringer: str) -> Finding:
    repair = f"{pip()} install {bringer}" if part in _BASE else install(bringer)
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


def _gpu(facts: dict, runtime: Finding, root: Path) -> list[Finding]:
    """Examine the NVIDIA driver, and ONNX Runtime's CUDA provider where there is a driver for it."""
    purpose = "engines trt and trt-rtx, provider cuda"
    library = nvml.driver_library()
    if library is None:
        repair = "with an NVIDIA GPU in the machine, install its driver: sudo apt install nvidia-driver"
        why = "no libcuda can be loaded" if facts["l4t"] or nvml.on_the_bus(root) else _NO_GPU
        return [Finding("nvidia driver", purpose, "missing", why, repair)]
    names = [f"{gpu['name']} (sm_{(gpu['compute_capability'] or '?').replace('.', '')})" for gpu in facts["gpus"]]
    detail = f"{facts['driver'] or library}, CUDA {facts['cuda'] or 'version not told'}: {', '.join(names) or 'GPU not told'}"
    found = [Finding("nvidia driver", purpose, "ok", detail)]
    if runtime.state == "ok" and "CUDAExecutionProvider" not in runtime.detail:
        on_jetson = facts["l4t"] is not None  # PyPI has no CUDA wheels of ONNX Runtime for it
        repair = "use --engine trt" if on_jetson else f"{pip()} uninstall -y onnxruntime && {install('gpu')}"
        found.append(Finding("cuda provider", "infer --provider cuda", "missing", "ONNX Runtime without CUDA", repair))
    return found


def _jetson(facts: dict) -> list[Finding]:
    """Examine a Jetson: JetPack's version, and the power mode, which may halve the speed."""
    if facts["l4t"] is None:
        return []
    purpose = "CUDA and TensorRT on Jetson"
    where = f"{facts['board'] or 'Jetson'}, L4T {facts['l4t']}, power mode {facts['power_mode'] or 'not told'}"
    if facts["jetpack"] is None:
        return [Finding("jetpack", purpose, "missing", where, "sudo apt install nvidia-jetpack")]
    return [Finding("jetpack", purpose, "ok", f"{facts['jetpack']} on {where}")]


def _tensorrt(facts: dict) -> list[Finding]:
    """Examine both families without importing them, which takes seconds and a driver."""
    found = []
    for part, modules in _TENSORRT:
        engine = {"tensorrt": "trt", "tensorrt_rtx": "trt-rtx"}[part]
        purpose = f"engine {engine}"
        if any(importlib.util.find_spec(module) for module in modules):
            found.append(Finding(part, purpose, "ok", facts[part] or "of the system"))
        elif facts["l4t"] is not None:
            if part == "tensorrt":
                found.append(
                    Finding(
                        part,
                        purpose,
                        "missing",
                        "not installed",
                        "sudo apt install python3-libnvinfer, and a virtual environment with --system-site-packages",
                    )
                )
        else:
            found.append(Finding(part, purpose, "missing", "not installed", install(engine)))
    return found


def _images() -> Finding:
    purpose, repair = "image files", f"{pip()} install --upgrade opencv-python-headless"
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        return Finding("image formats", purpose, "broken", str(error).splitlines()[0], repair)
    lacking = [suffix for suffix in _IMAGES if not cv2.haveImageWriter(f"x{suffix}")]
    if lacking:
        return Finding("image formats", purpose, "broken", f"this OpenCV writes no {', '.join(lacking)}", repair)
    return Finding("image formats", purpose, "ok", ", ".join(s[1:] for s in _IMAGES))


def _video() -> Finding:
    """Examine FFmpeg's codecs, which PyAV and most builds of OpenCV bring along; the program ffmpeg is not needed."""
    purpose = "infer on videos"
    if importlib.util.find_spec("av") is not None:
        try:
            av = importlib.import_module("av")
        except ImportError as error:
            return Finding("video", purpose, "broken", str(error).splitlines()[0], install("video"))
        codecs = [name for name in _VIDEO if name in av.codecs_available]
        return Finding("video", purpose, "ok", f"PyAV {av.__version__}: {', '.join(codecs)}")
    ffmpeg = f"; {program}" if (program := shutil.which("ffmpeg")) else "; no program ffmpeg"
    if importlib.util.find_spec("cv2") is None:
        return Finding("video", purpose, "missing", f"neither PyAV nor OpenCV{ffmpeg}", install("video"))
    build = importlib.import_module("cv2").getBuildInformation()
    if re.search(r"FFMPEG:\s+YES", build):
        return Finding("video", purpose, "ok", f"OpenCV with FFmpeg, without sound{ffmpeg}", install("video"))
    return Finding("video", purpose, "missing", f"no PyAV, and OpenCV without FFmpeg{ffmpeg}", install("video"))


def _folders() -> list[Finding]:
    """Examine what is kept: where, how large, whether it can be written."""
    kept = (
        ("cache", cache_folder(), "keeping exported models and engines", "DARSR_CACHE"),
        ("data", data_folder(), "keeping downloaded backbones", "DARSR_DATA"),
    )
    found = []
    for part, folder, purpose, variable in kept:
        why = why_not_writable(folder)
        if why:
            found.append(Finding(part, purpose, "broken", f"{folder}: {why}", f"export {variable}=/another/folder"))
        else:
            size, files = _size(folder)
            found.append(Finding(part, purpose, "ok", f"{folder}: {size / 1e6:.1f} MB in {files} files"))
    return found


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder, or the folder cannot be made; None where it can."""
    try:
        if folder.is_dir():
            with tempfile.TemporaryFile(dir=folder):
                return None
        above = next((parent for parent in folder.parents if parent.exists()), None)
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    if folder.exists():
        return "is no folder"
    if above is None or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return f"cannot be made ({above} cannot be written)"
    return None


def _size(folder: Path) -> tuple[int, int]:
    """Return bytes and number of the files below a folder; what vanishes meanwhile is left out."""
    total = count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
            count += 1
    return total, count
