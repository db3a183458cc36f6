"""Hints that end error lines: the command that installs what is missing, the engine that works here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path


def install(*extras: str) -> str:
    """Return the command that installs extras of this package: ``pip install "torch>=2.9" "scikit-image>=0.22"``.

    It names the requirements, not the extra: this package is on no index, and a wheel leaves no source folder behind.
    """
    try:
        lines = importlib.metadata.requires("darsr") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    found = [_of_extra(lines, extra) for extra in extras]
    if not all(found):  # run from source, or installed before the extra existed
        return f'{pip()} install "{Path(__file__).parent.parent}[{",".join(extras)}]"'
    requirements = dict.fromkeys(requirement for of_one in found for requirement in of_one)
    return f"{pip()} install {' '.join(requirements)}"


def pip() -> str:
    """Return how to call this Python's pip: plainly where the shell finds the same one."""
    found = shutil.which("pip")
    own = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip" if own else f"{sys.executable} -m pip"


def _of_extra(lines: list[str], extra: str) -> list[str]:
    """Return an extra's requirements, quoted for a shell, without markers: pip explains an excluded machine better."""
    parts = [line.partition(";") for line in lines]
    return [f'"{name.strip()}"' for name, _, marker in parts if f"extra == '{extra}'" in marker.replace('"', "'")]


def works_here() -> str:
    """Return a hint that names the engine that runs on this machine."""
    for module, name in (("onnxruntime", "ort"), ("torch", "torch")):
        if importlib.util.find_spec(module) is not None:
            return f"--engine {name} works here"
    return f"or {install('ort')} and use --engine ort"
