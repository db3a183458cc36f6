"""The command that installs what is missing, as an error line ends with it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path


def install(*extras: str) -> str:
    """The command that installs what extras of this package bring: ``pip install "torch>=2.9" "scikit-image>=0.22"``.

    The requirements are named and not the extra: no package index has this package, and who installed a wheel has no
    source folder to install an extra from.
    """
    try:
        lines = importlib.metadata.requires("darsr") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    found = [_of_extra(lines, extra) for extra in extras]
    if not all(found):  # run from a source folder that was not installed, or not since it has this extra
        return f'{pip()} install "{Path(__file__).parent.parent}[{",".join(extras)}]"'
    requirements = dict.fromkeys(requirement for of_one in found for requirement in of_one)
    return f"{pip()} install {' '.join(requirements)}"


def pip() -> str:
    """How pip of this Python is called: plainly, where the shell's is that one."""
    found = shutil.which("pip")
    own = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip" if own else f"{sys.executable} -m pip"


def _of_extra(lines: list[str], extra: str) -> list[str]:
    """What an extra requires, quoted for a shell. On a machine that a requirement excludes pip says so more clearly."""
    parts = [line.partition(";") for line in lines]
    return [f'"{name.strip()}"' for name, _, marker in parts if f"extra == '{extra}'" in marker.replace('"', "'")]


def works_here() -> str:
    """The engine that does run on this machine, as the end of an error line."""
    for module, name in (("onnxruntime", "ort"), ("torch", "torch")):
        if importlib.util.find_spec(module) is not None:
            return f"--engine {name} works here"
    return f"or {install('ort')} and use --engine ort"
