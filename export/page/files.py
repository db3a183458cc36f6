"""The files that a page hands out: byte for byte those that the command line writes with the same options."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.places import adapter_target, output_path
from darsr_deploy.install import install
from darsr_train.commands.adapt_tasks import AdaptTask, adapt_task, prepare

from ..inference.pictures import UpscaleTask, upscale_picture
from .studio import Made, Opened, Wanted

KINDS = ("png", "jpg", "adapter", "onnx")
_NEEDED = {"torch": "train", "onnx": "export", "onnxscript": "export"}  # modules of an export, and their extras
Report = Callable[[dict], None]


def missing_for_onnx() -> str | None:
    """Return a sentence that says what an ONNX file lacks here; None where it can be made."""
    missing = [extra for module, extra in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    extras = list(dict.fromkeys(missing))
    return f"An ONNX file needs the extra {' and '.join(extras)}: {install(*extras)}"


def make_file(opened: Opened, wanted: Wanted, kind: str, threads: int, report: Report) -> Made:
    """Make a file of an open picture, or return it where it is made already.

    Args:
        kind: ``png`` or ``jpg``, as of ``darsr upscale``; ``adapter``, as of ``darsr adapt``; ``onnx``, as of ``darsr export``.
        report: told ``{step, steps}`` after each tile of a picture; what it raises ends the work.

    Raises:
        DarsrError: another kind, one that cannot hold the picture, or a library that is missing.
    """
    if kind not in KINDS:
        raise DarsrError(f"kind {kind}", "is not known", f"choose one of {', '.join(KINDS)}")
    made = opened.made.pop(kind, None)
    if made is None or made.wanted != wanted or not made.path.is_file():
        made = Made(wanted, *_make(opened, wanted, kind, threads, report))
    opened.made[kind] = made
    return made


def _make(opened: Opened, wanted: Wanted, kind: str, threads: int, report: Report) -> tuple[Path, str]:
    file, options = opened.file, wanted.options()
    told, device = prepare("edge", options, "auto", threads)
    same = {"replace": True, "told": told, "threads": threads}
    if kind in ("png", "jpg"):
        folder = file.parent / "made"
        folder.mkdir(exist_ok=True)
        target = output_path(file, folder, False, f"_x{wanted.scale}", f".{kind}")
        row = upscale_picture(UpscaleTask(file, target, None, None, options, device, **same), report)
        return target, row.get("say", "")
    if kind == "onnx" and (why := missing_for_onnx()):
        raise DarsrError("the ONNX file", why[0].lower() + why[1:])
    adapter = adapter_target(file, None, False)
    adapt_task(AdaptTask(file, adapter, "edge", options, device, **same), lambda _: None)
    if kind == "adapter":
        return adapter, ""
    from ..artefacts.request import ExportRequest, run_export

    return Path(run_export(ExportRequest(adapter, overwrite=True))["model"]), ""
