"""What saves a run of the tests time: networks that are exported once, and runtimes that keep to one thread."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def keep_to_one_thread() -> None:
    """Threads of ONNX Runtime and OpenCV that wait for each other cost more than they bring on pictures this small."""
    import cv2

    cv2.setNumThreads(1)
    with contextlib.suppress(ImportError):
        import onnxruntime

        class Session(onnxruntime.InferenceSession):
            def __init__(self, model, sess_options=None, *arguments, **options):
                sess_options = sess_options or onnxruntime.SessionOptions()
                sess_options.intra_op_num_threads = sess_options.intra_op_num_threads or 1
                super().__init__(model, sess_options, *arguments, **options)

        onnxruntime.InferenceSession = Session


def keep_exports(folder: Path, replace: Callable[[object, str, object], None] = setattr) -> None:
    """PyTorch's exporter takes seconds: the same weights go through it once for all processes that share the folder.

    Args:
        replace: sets an attribute of a module, such as ``monkeypatch.setattr``.
    """
    import onnx
    from filelock import FileLock

    from export.artefacts import model as model_file
    from export.onnx_graphs import build
    from export.onnx_graphs.opset import OPSET

    real = build.build_model

    def build_model(pipeline, opset=OPSET):
        key = hashlib.sha256(f"{pipeline} {opset}".encode())
        for name, tensor in pipeline.state_dict().items():
            key.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        kept = folder / f"{key.hexdigest()}.onnx"
        with FileLock(f"{kept}.lock"):
            if kept.exists():
                return onnx.load(kept)
            model = real(pipeline, opset)
            with contextlib.suppress(OSError):  # a test may let the disk be full
                kept.with_suffix(".part").write_bytes(model.SerializeToString(deterministic=True))
                os.replace(kept.with_suffix(".part"), kept)
            return model

    for module in (build, model_file):
        replace(module, "build_model", build_model)
