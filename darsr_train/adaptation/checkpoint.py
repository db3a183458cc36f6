"""The state of an unfinished adaptation, from which a killed run continues."""

from __future__ import annotations

import io
import time
from pathlib import Path

import torch
from torch import nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import write_bytes

_EVERY_SECONDS = 5.0


class Checkpoint:
    """A file that holds tensors and numbers of the last saved step.

    Args:
        path: beside the adapter to be.
        identity: of image, backbone and options; a state of another identity is refused.
        resume: whether to read an existing file.
    """

    def __init__(self, path: Path, identity: str, resume: bool) -> None:
        self.path, self.identity = path, identity
        self._saved = time.monotonic()
        self._state = self._read() if resume and path.is_file() else None

    def restore(self, phase: str) -> dict | None:
        """Return the saved state if it is of the given phase, else None."""
        return self._state["state"] if self._state and self._state["phase"] == phase else None

    def load(self, phase: str, owners: dict[str, nn.Module | torch.optim.Optimizer]) -> int:
        """Load the saved state of a phase into its owners; return the step to continue from (0: nothing was saved)."""
        saved = self.restore(phase)
        if saved is None:
            return 0
        for name, owner in owners.items():
            owner.load_state_dict(saved[name])
        return saved["step"]

    def save(self, phase: str, state: dict, force: bool = False) -> None:
        """Write the state, at most every few seconds unless forced."""
        if force or time.monotonic() - self._saved >= _EVERY_SECONDS:
            write_bytes(self.path, saved_bytes({"identity": self.identity, "phase": phase, "state": state}))
            self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the work is done."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict:
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            same = found["identity"] == self.identity
        except Exception as error:  # torch raises many kinds for a damaged file
            raise DarsrError(
                str(self.path), "is not the state of an unfinished adaptation", "delete it, or leave out --resume"
            ) from error
        if not same:
            raise DarsrError(
                str(self.path),
                "belongs to another image, backbone or other options",
                "give the same ones, or leave out --resume",
            )
        return found


def saved_bytes(state: dict) -> bytes:
    """Return what ``torch.save`` writes, since on a full disk it does not raise OSError itself."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
