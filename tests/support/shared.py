"""Where development data may lie; everything that needs it is skipped, with this reason, where it does not."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("DARSR_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no development data in {SHARED} (set DARSR_SHARED)"
)


@functools.cache
def srfbn(scale: int):
    """SRFBN-S with its published weights."""
    from darsr_train.backbones import import_weights

    with tempfile.TemporaryDirectory() as folder:
        return import_weights(
            SHARED / "weights" / f"SRFBN-S_x{scale}_BI.pth", Path(folder) / f"srfbn-s-x{scale}.safetensors"
        )
