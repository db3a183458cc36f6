"""What an adapter brings into a runtime bundle, whatever runs it: checked, and in the shapes that the graphs take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DarsrError
from ..files.adapter import Adapter
from ..files.hashing import hash_file
from ..files.model_spec import Locality
from .weights import STAGES, correction_weights

if TYPE_CHECKING:
    from .manifest import Manifest


TILE_GRAPHS = ("correction_tile", *(f"stats{stage}" for stage in range(STAGES)))


@dataclass(frozen=True)
class AdapterInputs:
    """An adapter that fits a bundle; the backbone alone where all is None.

    Attributes:
        kind: ``network``, ``global`` or ``none``.
        weights: of the correction network, float32; None without one.
        coefficients: of one filter for all pixels, 1 x 13 x 1 x 1; None without one.
        kernel, rounds: of back-projection; None and 0 without.
        stages: averages over the whole image that tiles need.
        locality: what tiles need.
    """

    kind: str
    weights: dict[str, np.ndarray] | None
    coefficients: np.ndarray | None
    kernel: np.ndarray | None
    rounds: int
    stages: int
    locality: Locality


def load_adapter(path: Path) -> tuple[Adapter, str]:
    """Load an adapter that this version can run, and the sha256 of its file.

    Raises:
        DarsrError: it cannot be read, or has a part that is not known: leaving that out would give another picture.
    """
    adapter = Adapter.load(path)
    known = {"taps", "kernel", *(f"darm.{name}" for name in adapter.darm_arrays())}
    parts = sorted(adapter.arrays.keys() - known) + ["backprojection"] * bool(adapter.facts.get("backprojection"))
    if parts:
        why = f"its correction ({adapter.correction}) has a part, {parts[0]}, that cannot be exported or run by this version"
        raise DarsrError(str(path), why, "install a newer version, or adapt again without it")
    return adapter, hash_file(path)


def bind_adapter(adapter: Adapter | None, manifest: Manifest, folder: str, what: str) -> AdapterInputs:
    """Check an adapter against a bundle and take from it what the graphs need.

    Args:
        folder, what: names of the bundle and of the adapter in errors.

    Raises:
        DarsrError: the adapter is of another scale, backbone or architecture than the bundle.
    """
    kind, weights, coefficients, kernel = "none" if adapter is None else adapter.correction, None, None, None
    if adapter is not None:
        _check(adapter, manifest, folder, what)
    if kind == "network":
        weights = correction_weights(adapter.darm_arrays(), manifest.weights, what)
    elif kind == "global":
        coefficients = adapter.arrays["taps"].astype(np.float32).reshape(1, 13, 1, 1)
    rounds = 0 if adapter is None else adapter.rounds
    if rounds:
        kernel = _within(adapter.arrays["kernel"], manifest.kernel_side)
    stages = STAGES if kind == "network" else 0
    return AdapterInputs(kind, weights, coefficients, kernel, rounds, stages, _locality(manifest, kind, stages, rounds))


def graphs_of(fitted: AdapterInputs) -> list[str]:
    """The graphs of a bundle that run an adapter on whole images."""
    correction = {"network": ["correction"], "global": ["filter"], "none": []}[fitted.kind]
    return [*correction, "backbone", *["backprojection"] * bool(fitted.rounds)]


def tile_graphs_of(fitted: AdapterInputs) -> list[str]:
    """Those that it needs besides to run in tiles."""
    return [*TILE_GRAPHS] if fitted.kind == "network" else []


def _locality(manifest: Manifest, kind: str, stages: int, rounds: int) -> Locality:
    halos, s = manifest.halos, manifest.spec.scale
    graphs = {"network": ["correction_tile"], "global": ["filter"], "none": []}[kind]
    held = 4 * 3 * (2 + 2 * s * s)  # lr, corrected, and two results between the graphs
    alive = [*graphs, "backbone", *(f"stats{stage}" for stage in range(stages))]
    alive += ["backprojection"] * bool(rounds)
    most = held + max(manifest.bytes_per_pixel[graph] for graph in alive)
    if halos["backbone"] is None:
        return Locality(bytes_per_pixel=most, why=f"the backbone takes whole images ({manifest.whole_because})")
    halo = halos["backbone"] + sum(halos[graph] for graph in graphs) + rounds * halos["backprojection"]
    return Locality(halo, manifest.alignment, most, tuple(halos[f"stats{stage}"] for stage in range(stages)))


def _check(adapter: Adapter, manifest: Manifest, folder: str, what: str) -> None:
    spec = manifest.spec
    if adapter.scale != spec.scale:
        why = f"is an adapter for scale {adapter.scale}, and {folder} is for {spec.scale}"
        raise DarsrError(what, why, "export a bundle from an adapter of that scale")
    if adapter.backbone_sha256 != spec.backbone_sha256:
        why = f"was fitted through the backbone {adapter.backbone}, and {folder} holds {spec.backbone}"
        if adapter.backbone == spec.backbone:
            why = f"was fitted through another {adapter.backbone} than the one in {folder}"
        raise DarsrError(what, why, "export a bundle from this adapter")
    side = adapter.arrays["kernel"].shape[0] if adapter.rounds else 0
    if side > manifest.kernel_side:
        why = f"its kernel is {side} pixels wide, and {folder} takes {manifest.kernel_side}"
        raise DarsrError(what, why, "export a bundle from this adapter")


def _within(kernel: np.ndarray, side: int) -> np.ndarray:
    """A kernel of even side in the middle of a larger one: the same filter."""
    margin = (side - kernel.shape[0]) // 2
    return np.pad(kernel.astype(np.float32), margin)
