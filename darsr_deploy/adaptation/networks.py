"""The networks that look at an image, in ONNX Runtime: graphs and weights that come with the package."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import numpy as np

from ..blind.estimator import estimator_path
from ..bundle.manifest import Manifest
from ..bundle.shipped import GRAPH_FILES, backbone_path, bound_backbone, identity, load_weights, prior_path
from ..engines.ort import installed_runtimes, open_session, run_session
from ..files.onnx_bytes import bind


class OrtNetworks:
    """See :class:`..blind.judgement.Networks`. A graph is opened when it is run for the first time.

    Args:
        threads: of the CPU, for what restores; 0 lets ONNX Runtime choose.
    """

    def __init__(self, scale: int, threads: int = 0) -> None:
        self._scale, self._threads = scale, threads

    @property
    def version(self) -> dict[str, str]:
        """Return the runtime's name and version."""
        name = installed_runtimes()[0]
        return {name: importlib.metadata.version(name)}

    def estimate(self, lr: np.ndarray) -> np.ndarray:
        """Return the estimator's 16 numbers."""
        return run_session(_estimator(), "found", {"lr": lr}, "the estimator")[0]

    def restore(self, lr: np.ndarray) -> np.ndarray:
        """Return what the prior and the frozen backbone make of it: 1 x 3 x sH x sW, not clipped."""
        prior, backbone = _restorers(self._scale, self._threads)
        corrected = run_session(prior, "corrected", {"lr": lr}, "the prior")
        return run_session(backbone, "sr", {"lr": corrected}, "the backbone")


@functools.cache
def _estimator() -> Any:
    """Open the estimator with one thread: with more its sums over all pixels, and an adapter's bytes, depend on how many."""
    data = (GRAPH_FILES / "estimator.onnx").read_bytes()
    weights = load_weights(estimator_path(), "estimator").arrays
    return open_session(bind(data, weights), "the estimator", threads=1, brief=True)


@functools.cache
def _restorers(scale: int, threads: int) -> tuple[Any, Any]:
    folder = GRAPH_FILES / f"x{scale}"
    manifest = Manifest.load(folder)
    prior = load_weights(prior_path(scale), "prior").arrays
    arrays = load_weights(backbone_path(scale), "backbone").arrays
    backbone = bound_backbone(manifest, folder, arrays, identity(manifest.modulated_channels))
    return (
        open_session(bind(manifest.read(folder, "correction.onnx"), prior), "the prior", threads=threads, brief=True),
        open_session(backbone, "the backbone", threads=threads, brief=True),
    )
