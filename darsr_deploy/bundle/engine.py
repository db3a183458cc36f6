"""One adapter in a runtime bundle as an engine: what is the same whichever runtime computes the graphs."""

from __future__ import annotations

import numpy as np

from ..engines.base import check_input
from .adapter_inputs import AdapterInputs
from .graphs import Step, step
from .manifest import Manifest


class BundleEngine:
    """See :class:`darsr_deploy.engines.base.Engine` and :class:`darsr_deploy.engines.base.Tileable`.

    Attributes:
        inputs: what the adapter brings.
    """

    def __init__(self, manifest: Manifest, inputs: AdapterInputs, sha256: str) -> None:
        self.inputs, self.stages, self.locality = inputs, inputs.stages, inputs.locality
        self.spec = manifest.spec.extended(form=inputs.kind, adapter_sha256=sha256)

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge whole images; see :meth:`darsr_deploy.engines.base.Engine.run`.

        Raises:
            DarsrError: a size that the bundle's engines were not built for, or a failure of the runtime.
        """
        return self._finish(self.inputs.steps(), {"lr": check_input(lr)})

    def check_size(self, lr: np.ndarray) -> None:
        """Accept any size."""

    def sums(self, lr: np.ndarray, core: np.ndarray, pooled: list[np.ndarray]) -> np.ndarray:
        """Sum over a tile's own pixels; see :meth:`darsr_deploy.engines.base.Staged.sums`."""
        return self._execute([step(f"stats{len(pooled)}")], {"lr": check_input(lr), "core": core} | named(pooled))

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """Enlarge a tile; see :meth:`darsr_deploy.engines.base.Tileable.run_tile`."""
        return self._finish(self.inputs.steps(tile=bool(pooled)), {"lr": check_input(lr)} | named(pooled))

    def _finish(self, steps: list[Step], feeds: dict[str, np.ndarray]) -> np.ndarray:
        sr = self._execute(steps, feeds)
        return np.clip(sr, 0, 1, out=sr)

    def _execute(self, steps: list[Step], feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Run the steps and return what the last one gives, N x C x H x W; the caller may write to it."""
        raise NotImplementedError


def named(pooled: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return averages by the names of the inputs that take them."""
    return {f"pooled{stage}": average for stage, average in enumerate(pooled)}
