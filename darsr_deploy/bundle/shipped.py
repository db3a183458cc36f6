"""The default backbones as runtime bundles: graphs that come with the package, and weights that come with it once.

``graphs/x2`` and ``graphs/x4`` are bundles whose backbone takes its weights as inputs (``python -m export.shipped``
makes them). Bound to the weights of a network, one is a bundle like any other, and is kept in the cache.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from ..files.adapter import Adapter
from ..files.atomic import atomic_folder
from ..files.container import read_container
from ..files.folders import WEIGHTS, cache_folder, make_cache_folder
from ..files.hashing import hash_bytes
from ..files.onnx_bytes import bind
from .graphs import GRAPHS
from .manifest import Manifest
from .ort_bundle import open_bundle
from .weights import kernel_side, widths_of

GRAPH_FILES = Path(__file__).parent.parent / "graphs"
REGIMES = (
    "clean",
    "wild",
)  # blur alone, or noise, compression and treatment: networks of one size know one of them better
_VERSIONS = {"backbone": 1, "modulated": 1, "prior": 1, "estimator": 1}  # of the files, by kind


@dataclass(frozen=True)
class Weights:
    """A network's file.

    Attributes:
        arrays: float32, by name.
        sha256: of the file.
    """

    facts: dict
    arrays: dict[str, np.ndarray]
    sha256: str

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose names begin with ``prefix.``, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): array for name, array in self.arrays.items() if name.startswith(start)}


@functools.lru_cache(maxsize=8)
def load_weights(path: Path, kind: str) -> Weights:
    """Read a network's file of the package; shared, so not to be changed.

    Raises:
        DarsrError: a damaged file.
    """
    facts, arrays, sha256 = read_container(path, kind, _VERSIONS[kind], "install the package again")
    return Weights(facts, {name: array.astype(np.float32) for name, array in arrays.items()}, sha256)


def backbone_path(scale: int) -> Path:
    """Return the file of a scale's default backbone."""
    return WEIGHTS / f"edge-x{scale}.safetensors"


def prior_path(scale: int) -> Path:
    """Return the file of a scale's prior for clean blur."""
    return WEIGHTS / f"prior-x{scale}.safetensors"


def modulated_path(scale: int, regime: str) -> Path:
    """Return the networks' file of a scale and a regime: the wild ones where a scale has no others."""
    path = WEIGHTS / f"modulated-{regime}-x{scale}.safetensors"
    return path if path.is_file() else WEIGHTS / f"modulated-wild-x{scale}.safetensors"


def load_modulated(scale: int, regime: str) -> Weights:
    """Return the networks of a scale and a regime that are told the degradation."""
    return load_weights(modulated_path(scale, regime), "modulated")


def is_default(backbone_sha256: str, scale: int) -> bool:
    """Return whether a backbone is the one of a scale that has networks of its own for every regime."""
    own = {load_modulated(scale, regime).facts.get("neutral_sha256") for regime in REGIMES} if scale in (2, 4) else {}
    return own == {backbone_sha256}


def bundle_for(adapter: Adapter | None, scale: int = 2, provider: str = "cpu") -> Path | None:
    """Return the bundle that runs an adapter, or the default backbone alone, in the cache; made now if it is not there.

    Args:
        scale: of the backbone alone.
        provider: for which the bundle is opened to check it, and stays open.

    Returns:
        None where the adapter's backbone or networks do not come with this version of the package.

    Raises:
        DarsrError: the cache cannot be written.
    """
    scale = scale if adapter is None else adapter.scale
    folder = GRAPH_FILES / f"x{scale}"
    manifest, backbone = Manifest.load(folder), load_weights(backbone_path(scale), "backbone")
    arrays, modulation = backbone.arrays, ""
    if adapter is not None:
        if adapter.backbone_sha256 != backbone.sha256 or kernel_side(adapter) > manifest.kernel_side:
            return None
        if adapter.correction == "network" and list(widths_of(adapter)) != _widths(manifest):
            return None
        if modulation := adapter.modulation_sha256:
            found = [one for regime in REGIMES if (one := load_modulated(scale, regime)).sha256 == modulation]
            if not found:
                return None
            arrays = found[0].below("backbone")
    key = (importlib.metadata.version("darsr"), sorted(manifest.files.items()), backbone.sha256, modulation)
    target = cache_folder() / "bundles" / hash_bytes(str(key).encode())[:32]
    try:
        open_bundle(target, provider)
    except DarsrError:  # none, or a damaged one
        make_cache_folder(target.parent)
        _write(target, folder, manifest, arrays, modulation)
    return target


def _widths(manifest: Manifest) -> list[int]:
    return [manifest.weights["head.bias"][0], manifest.weights["stages.0.squeeze.bias"][0]]


def _write(target: Path, source: Path, manifest: Manifest, arrays: Mapping[str, np.ndarray], modulation: str) -> None:
    """Write a bundle whose backbone has its weights; without a modulation also scales of 1 and shifts of 0."""
    contents = {f"{graph}.onnx": manifest.read(source, f"{graph}.onnx") for graph in GRAPHS}
    channels = manifest.modulated_channels
    contents["backbone.onnx"] = bound_backbone(manifest, source, arrays, None if modulation else identity(channels))
    spec = manifest.spec.extended(backbone_sha256=load_weights(backbone_path(manifest.spec.scale), "backbone").sha256)
    own = {"spec": spec, "files": {name: hash_bytes(data) for name, data in contents.items()}}
    own |= {"modulation_sha256": modulation, "modulated_channels": channels if modulation else 0}
    with atomic_folder(target) as folder:
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        Manifest(**vars(manifest) | own).save(folder)


def identity(channels: int) -> dict[str, np.ndarray]:
    """Return the modulation that changes nothing."""
    return {"scale": np.ones(channels, np.float32), "shift": np.zeros(channels, np.float32)}


def bound_backbone(
    manifest: Manifest, folder: Path, arrays: Mapping[str, np.ndarray], modulation: Mapping[str, np.ndarray] | None
) -> bytes:
    """Return the backbone's graph with weights, and with a modulation if one is given: lr -> sr, not clipped.

    Args:
        arrays: of an ``edge`` network, by the names of its state.
    """
    inputs = {f"backbone.{name}": array for name, array in arrays.items()} | dict(modulation or {})
    for name, slopes in arrays.items():
        if name.startswith("activations."):  # x + (1 - a) relu(-x), see export.onnx_graphs.rewrites
            inputs[f"backbone.{name.removesuffix('.weight')}.rest"] = (1 - slopes).reshape(-1, 1, 1, 1)
    return bind(manifest.read(folder, "backbone.onnx"), inputs)
