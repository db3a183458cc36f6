"""Build the TensorRT plugin of the correction filter: ``python -m export.plugin.build -o libdarsr_filter.so``.

Needs only CUDA's compiler and TensorRT's headers and library, as on a Jetson with JetPack 6 (TensorRT 10.3) or newer:
neither PyTorch nor onnx. docs/correction-filter.md shows how to build an engine with it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import atomic_path

SOURCES = Path(__file__).parent
_CUDA = (Path("/usr/local/cuda/bin"),)  # JetPack's, which is not on PATH
_PREFIXES = (Path("/usr"), Path("/usr/local/tensorrt"))
_HEADER = "NvInferRuntime.h"


def build(target: Path, arch: str = "native", tensorrt: Path | None = None) -> list[str]:
    """Compile and link the plugin.

    Args:
        arch: GPU to build for, as nvcc names it (``sm_87`` is Orin); this machine's by default.
        tensorrt: folder with ``include`` and ``lib`` of an installation outside the system's folders.

    Returns:
        The command that was run, without its output file.

    Raises:
        DarsrError: compiler or headers are missing, or the compiler fails; nothing is written then.
    """
    if not re.fullmatch(r"native|sm_\d+[a-z]?", arch):
        raise DarsrError(f"arch {arch}", "is not a GPU architecture", "write it as nvcc does, sm_87, or leave it out")
    command = [find_compiler(), "-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC", f"-arch={arch}"]
    command += [f"-I{find_headers(tensorrt)}", *map(str, sources())]
    command += [f"-L{tensorrt / 'lib'}"] if tensorrt else []
    command += ["-lnvinfer"]
    with atomic_path(target) as temporary:
        done = subprocess.run([*command, "-o", str(temporary)], capture_output=True, text=True)
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines()
            why = next((line for line in lines if "error" in line or "cannot find" in line), lines[-1] if lines else "")
            raise DarsrError(str(target), f"nvcc failed ({why.strip()[:300]})", "see docs/correction-filter.md")
    return command


def sources() -> list[Path]:
    """Return the source files that are compiled."""
    return [SOURCES / "correction_filter.cu", SOURCES / "tensorrt_plugin.cpp"]


def find_compiler() -> str:
    """Return the path of nvcc, on PATH or where JetPack puts it.

    Raises:
        DarsrError: there is none.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, _CUDA)])
    found = shutil.which("nvcc", path=path)
    if found is None:
        raise DarsrError("the plugin", "nvcc is not installed", "install the CUDA toolkit (on Jetson: cuda-toolkit)")
    return found


def find_headers(tensorrt: Path | None = None) -> Path:
    """Return the folder that holds TensorRT's headers.

    Raises:
        DarsrError: there is none.
    """
    prefixes = (tensorrt,) if tensorrt else _PREFIXES
    folders = [folder for prefix in prefixes for folder in (prefix / "include", *prefix.glob("include/*-linux-gnu"))]
    for folder in folders:
        if (folder / _HEADER).is_file():
            return folder
    raise DarsrError(
        "the plugin",
        f"{_HEADER} is not in {prefixes[0] / 'include'}",
        "install libnvinfer-headers-dev, or name TensorRT's folder with --tensorrt",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("libdarsr_filter.so"))
    parser.add_argument("--arch", default="native", help="sm_87 is Orin; this machine's GPU by default")
    parser.add_argument("--tensorrt", type=Path, metavar="DIR", help="folder with include and lib")
    arguments = parser.parse_args()
    build(arguments.output, arguments.arch, arguments.tensorrt)
    print(arguments.output)


if __name__ == "__main__":
    try:
        main()
    except DarsrError as error:
        sys.exit(f"error: {error}")
