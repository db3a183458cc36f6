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
from .graphs import STAGES, TILE_GRAPHS, Step, all_steps, correction_steps
from .weights import correction_weights

if TYPE_CHECKING:
    from .manifest import Manifest


@dataclass(frozen=True)
class AdapterInputs:
    """An adapter that fits a bundle; the backbone alone where there is none.

    Attributes:
        kind: ``network``, ``global`` or ``none``.
        arrays: float32, by the input of a graph that they are bound to: the weights of the correction network, or
            ``coeff`` (1 x 13 x 1 x 1, one filter for all pixels); ``kernel`` of back-projection; ``scale`` and ``shift`` of a
            modulated backbone.
        rounds: of back-projection.
        locality: what tiles need.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    rounds: int
    locality: Locality

    @property
    def stages(self) -> int:
        """Return how many averages over the whole image tiles need."""
        return STAGES if self.kind == "network" else 0

    @property
    def graphs(self) -> list[str]:
        """Return the graphs that run whole images."""
        return list(dict.fromkeys(step.graph for step in self.steps()))

    @property
    def tile_graphs(self) -> list[str]:
        """Return the graphs that tiles need besides."""
        return [*TILE_GRAPHS] if self.stages else []

    def steps(self, tile: bool = False) -> list[Step]:
        """Return the order in which the graphs run."""
        return all_steps(self.kind, self.rounds, tile)


def load_adapter(path: Path) -> tuple[Adapter, str]:
    """Load an adapter that this version can run; return it and the sha256 of its file.

    Raises:
        DarsrError: it cannot be read, or has a part that is not known: leaving that out would give another picture.
    """
    adapter = Adapter.load(path)
    known = {"taps", "kernel", *(f"darm.{name}" for name in adapter.darm_arrays())}
    known |= {"modulation.scale", "modulation.shift"} if adapter.modulation_sha256 else set()
    parts = sorted(adapter.arrays.keys() - known) + ["backprojection"] * bool(adapter.facts.get("backprojection"))
    if parts:
        why = f"its correction ({adapter.correction}) has a part, {parts[0]}, that cannot be exported or run by this version"
        raise DarsrError(str(path), why, "install a newer version, or adapt again without it")
    return adapter, hash_file(path)


def bind_adapter(adapter: Adapter | None, manifest: Manifest, folder: str, what: str) -> AdapterInputs:
    """Check an adapter against a bundle and return what the graphs need of it.

    Args:
        folder, what: names of the bundle and of the adapter in errors.

    Raises:
        DarsrError: the adapter is of another scale, backbone or architecture than the bundle.
    """
    if adapter is None:
        if manifest.modulation_sha256:
            raise DarsrError(folder, "its backbone runs with an adapter alone", "give --adapter")
        return AdapterInputs("none", {}, 0, _describe_tiles(manifest, "none", 0))
    _check(adapter, manifest, folder, what)
    kind, arrays = adapter.correction, {}
    if kind == "network":
        arrays = correction_weights(adapter.darm_arrays(), manifest.weights, what)
    elif kind == "global":
        arrays = {"coeff": adapter.arrays["taps"].astype(np.float32).reshape(1, 13, 1, 1)}
    if adapter.rounds:
        arrays["kernel"] = _pad_kernel(adapter.arrays["kernel"], manifest.kernel_side)
    if adapter.modulation_sha256:
        arrays |= {name: adapter.arrays[f"modulation.{name}"].astype(np.float32) for name in ("scale", "shift")}
    return AdapterInputs(kind, arrays, adapter.rounds, _describe_tiles(manifest, kind, adapter.rounds))


def _describe_tiles(manifest: Manifest, kind: str, rounds: int) -> Locality:
    halos, s, stages = manifest.halos, manifest.spec.scale, STAGES if kind == "network" else 0
    graphs = [step.graph for step in correction_steps(kind, tile=True)]
    held = 4 * 3 * (2 + 2 * s * s)  # lr, corrected, and two results between the graphs
    alive = [*graphs, "backbone", *(f"stats{stage}" for stage in range(stages))]
    alive += ["backprojection"] * bool(rounds)
    most = held + max(manifest.bytes_per_pixel[graph] for graph in alive)
    if halos["backbone"] is None:
        return Locality(bytes_per_pixel=most, why=f"the backbone takes whole images ({manifest.whole_because})")
    local = {graph: halo for graph, halo in halos.items() if halo is not None}
    halo = local["backbone"] + sum(local[graph] for graph in graphs) + rounds * local["backprojection"]
    return Locality(halo, manifest.alignment, most, tuple(local[f"stats{stage}"] for stage in range(stages)))


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
    if adapter.modulation_sha256 != manifest.modulation_sha256:
        why = f"modulates the backbone {adapter.backbone} in another way than {folder} does"
        raise DarsrError(what, why, "export a bundle from this adapter")
    if adapter.modulation_sha256 and len(adapter.arrays["modulation.scale"]) != manifest.modulated_channels:
        raise DarsrError(
            what, f"its modulation does not fit the backbone of {folder}", "make a new one with darsr adapt"
        )
    side = adapter.arrays["kernel"].shape[0] if adapter.rounds else 0
    if side > manifest.kernel_side:
        why = f"its kernel is {side} pixels wide, and {folder} takes {manifest.kernel_side}"
        raise DarsrError(what, why, "export a bundle from this adapter")


def _pad_kernel(kernel: np.ndarray, side: int) -> np.ndarray:
    """Pad a kernel of even side to a larger one that filters the same."""
    margin = (side - kernel.shape[0]) // 2
    return np.pad(kernel.astype(np.float32), margin)
