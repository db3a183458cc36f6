"""Run a foreign ONNX model once in a process of its own, with limits on time and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .ort import import_onnxruntime

SECONDS = 120.0  # for loading it and for a picture of 24 x 20 pixels: the largest known networks take ten
MEMORY = 4 << 30  # bytes beyond four copies of the model
_SIDES = (24, 20)
_THREADS = 4
_TOO_LARGE = 3  # exit code
_HINT = "give a network that enlarges a small picture within these limits"


def try_model(model: bytes, name: str, batch: int, what: str) -> None:
    """Load a model and enlarge one small picture on the CPU, where it can neither stall nor fill this machine.

    A model that ONNX Runtime refuses passes: the caller gets the reason when it opens the model itself.

    Args:
        name: of the input, float32 N x 3 x H x W.
        batch: N.
        what: names the model in an error line.

    Raises:
        DarsrError: it takes more than :data:`SECONDS` or :data:`MEMORY`, or the process crashes.
    """
    import_onnxruntime()
    program = "from darsr_deploy.engines.trial import serve; serve()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program, name, str(batch), str(MEMORY)]
    try:
        done = subprocess.run(command, input=model, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        why = f"does not enlarge a picture of {_SIDES[1]}x{_SIDES[0]} pixels in {SECONDS:.0f} seconds"
        raise DarsrError(what, why, _HINT) from error
    if done.returncode == _TOO_LARGE:
        why = f"needs more than {MEMORY >> 30} GB of memory for a picture of {_SIDES[1]}x{_SIDES[0]} pixels"
        raise DarsrError(what, why, _HINT)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = f"ONNX Runtime crashes on it (exit code {done.returncode}{': ' + lines[-1][:200] if lines else ''})"
        raise DarsrError(what, why, "export it again")


def serve() -> None:
    """Run the model that comes on stdin; the process of :func:`try_model`."""
    onnxruntime = import_onnxruntime()
    name, batch, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    model = sys.stdin.buffer.read()
    _limit_memory(memory + 4 * len(model))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(_THREADS, os.cpu_count() or 1)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {name: np.full((batch, 3, *_SIDES), 0.5, np.float32)})
    except MemoryError:
        sys.exit(_TOO_LARGE)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base that is public
        if any(word in str(error).lower() for word in ("alloc", "memory")):
            sys.exit(_TOO_LARGE)


def _limit_memory(more: int) -> None:
    """Let the process have ``more`` bytes of addresses beside those it has, where the system can keep it to that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
