"""Commands of darsr and python as they are typed, each in a process forked from one that has the heavy packages imported.

The pages of the documentation type a hundred of them, and importing PyTorch takes as long as most of them do.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.thrift import keep_exports, keep_to_one_thread

# Imported by the process that is forked: imports alone, for a thread would not survive the fork.
_PRELOADED = [
    *("torch", "onnx", "onnxscript", "onnxruntime", "skimage.data", "cv2", "PIL.Image", "rich.progress", "cli"),
    *("export.artefacts.bundle", "darsr_train.adaptation.adapt", "tests.support.thrift"),
]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int | None
    stdout: str
    stderr: str


def typed(words: list[str], folder: Path, exports: Path, seconds: float = 600) -> Done:
    """Run a command in a folder, with the environment of this process.

    Args:
        words: ``darsr ...``, ``python -m MODULE ...`` or ``python -c CODE``.
        exports: see :func:`tests.support.thrift.keep_exports`.

    Raises:
        TimeoutError: it took longer.
    """
    outputs = [folder / f".typed-{name}" for name in ("stdout", "stderr")]
    arguments = (words, str(folder), exports, dict(os.environ), [str(p) for p in outputs])
    process = _context().Process(target=_run, args=arguments)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        raise TimeoutError(" ".join(words))
    stdout, stderr = (path.read_text(errors="replace") for path in outputs)
    for path in outputs:
        path.unlink()
    return Done(process.exitcode, stdout, stderr)


@functools.cache
def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run(words: list[str], folder: str, exports: Path, environment: dict[str, str], outputs: list[str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, mode) for i, mode in ((0, "r"), (1, "w"), (2, "w")))
    keep_to_one_thread()
    keep_exports(exports)
    if words[:2] == ["python", "-c"]:
        exec(words[2], {"__name__": "__main__"})
    elif words[0] == "python":
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        import cli

        cli.app()
