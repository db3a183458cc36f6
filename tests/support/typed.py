"""darsr commands as they are typed, each in a process of its own, forked from one that has the heavy packages imported.

The pages of the documentation type a hundred of them, and importing PyTorch takes as long as most of them do.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# Imported by the process that is forked: imports alone, for a thread would not survive the fork.
_PRELOADED = ["torch", "onnx", "onnxscript", "onnxruntime", "skimage.data", "cv2", "PIL.Image", "rich.progress", "cli"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int | None
    stdout: str
    stderr: str


def typed(words: list[str], folder: Path, seconds: float = 600) -> Done:
    """Run ``darsr WORDS`` in a folder, with the environment of this process.

    Raises:
        TimeoutError: it took longer.
    """
    outputs = [folder / f".typed-{name}" for name in ("stdout", "stderr")]
    process = _context().Process(target=_run, args=(words, str(folder), dict(os.environ), [str(p) for p in outputs]))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"darsr {' '.join(words)}")
    stdout, stderr = (path.read_text(errors="replace") for path in outputs)
    for path in outputs:
        path.unlink()
    return Done(process.exitcode, stdout, stderr)


@functools.cache
def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run(words: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
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
    sys.argv = ["darsr", *words]
    import cli

    cli.app()
