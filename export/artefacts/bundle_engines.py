"""Engines of a runtime bundle: built where :mod:`darsr_deploy.trt.open_bundle` finds none, or ahead of time into the bundle."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from darsr_deploy.bundle.adapter_inputs import TILE_GRAPHS, bind_adapter
from darsr_deploy.bundle.manifest import GRAPHS, MANIFEST, Manifest
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.atomic import atomic_folder
from darsr_deploy.files.folders import engines_folder
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.trt import cache as engine_cache
from darsr_deploy.trt.bundle import TrtBundle, TrtBundleEngine
from darsr_deploy.trt.cache import EngineCache
from darsr_deploy.trt.engine_file import EngineFacts, sidecar_path, write_engine
from darsr_deploy.trt.library import Library, require_gpu
from darsr_deploy.trt.open_bundle import Built, own_engine, own_engines
from darsr_deploy.trt.open_bundle import open_in_tensorrt as open_found
from darsr_deploy.trt.parity import Reference, bundle_parity
from darsr_deploy.trt.shapes import Shapes
from darsr_deploy.trt.trust import trust

from .build_engine import BuildOptions, Report, build_engine
from .engine import Say, build_file, runs_here


@dataclass(frozen=True)
class EngineBuilder:
    """Builds what :func:`darsr_deploy.open_engine` does not find. See :class:`darsr_deploy.trt.open_bundle.Builder`.

    Attributes:
        report: told ``{"phase", "step", "steps"}`` while TensorRT builds.
        reference: what a model's engine is compared with on the device; by default ONNX Runtime on the file.
        photo: 1 x 3 x H x W, to compare on.
    """

    say: Say
    report: Report | None = None
    reference: Reference | None = None
    photo: np.ndarray | None = None

    def build_graphs(self, bundle: TrtBundle, files: dict[str, bytes], shapes: Shapes) -> Built:
        """Build the engines of a bundle's graphs."""
        targets = (bundle.device.target,) if bundle.library.family.name == "trt-rtx" else ()
        return _build(bundle.manifest, files, bundle.library, BuildOptions(shapes, targets), self.report)

    def build_model(self, onnx: Path, target: Path, library: Library, *, shapes: Shapes, key: str) -> EngineFacts:
        """Build the engine of a model file, compare it and write it."""
        targets = (require_gpu(library)[1],) if library.family.name == "trt-rtx" else ()
        options = BuildOptions(shapes, targets)
        return build_file(onnx, target, library, options, self.say, self.report, self.reference, self.photo, key=key)


def open_in_tensorrt(
    folder: Path,
    adapter: Path | None,
    library: Library,
    cache: EngineCache,
    say: Say,
    report: Report | None = None,
    trust: bool = False,
) -> TrtBundleEngine:
    """An adapter in a bundle, on the GPU at hand; see :func:`darsr_deploy.trt.open_bundle.open_in_tensorrt`.

    Engines that are neither in the bundle nor in the cache are built once, for all adapters.
    """

    builder = EngineBuilder(say, report)
    return open_found(folder, adapter, library, cache, say, builder, trust=trust)


def add_engines(
    folder: Path,
    library: Library,
    options: BuildOptions,
    name: Path,
    say: Say,
    report: Report | None = None,
    floor_db: float | None = None,
) -> dict[str, EngineFacts]:
    """Build an engine for each graph of a bundle and write it beside the graph's ONNX file.

    They are not among the files of the manifest: each has a sidecar that holds its own sha256 and that of its graph, and a
    bundle is the same bundle, and readable by every version, with engines or without. Engines of one size run no tiles, so
    the graphs of tiles get none.

    Where a GPU that they are for is at hand, those that run the bundle's own adapter are run and compared.

    Args:
        folder: the bundle, complete but for its engines, and nobody else's yet.
        name: what the bundle is called in lines.
        floor_db: least PSNR on the device; by default the precision's own.

    Returns:
        the facts by graph.

    Raises:
        DarsrError: see :func:`.build_engine.build_engine` and :func:`darsr_deploy.trt.parity.bundle_parity`.
    """
    manifest = Manifest.load(folder)
    graphs = [graph for graph in GRAPHS if not (options.shapes.static and graph in TILE_GRAPHS)]
    files = {graph: manifest.read(folder, f"{graph}.onnx") for graph in graphs}
    built = _build(manifest, files, library, options, report)
    why_not = runs_here(built["backbone"][1])
    if why_not:
        say(f"{name}: engines built, not run yet ({why_not})")
    else:
        built = _compared(folder, manifest, built, library, name, say, floor_db)
    for graph, (data, facts) in built.items():
        write_engine(own_engine(folder, graph), data, facts)
        trust(facts.sha256)
    return {graph: facts for graph, (_, facts) in built.items()}


def export_engines(
    source: Path,
    out: Path | None,
    library: Library,
    options: BuildOptions,
    claim: Callable[[Path], Path],
    say: Say,
    report: Report | None = None,
    floor_db: float | None = None,
) -> tuple[Path, dict[str, EngineFacts]]:
    """Build engines into a bundle that is there, or into a copy of it. Neither PyTorch nor onnx is needed.

    Args:
        out: a folder for the copy; by default the bundle itself, whose older engines are replaced.

    Returns:
        the bundle and :func:`add_engines`' facts.

    Raises:
        DarsrError: no bundle, or a file of it that is damaged; and what :func:`add_engines` raises.
    """
    manifest = Manifest.load(source)
    for name in manifest.files:
        manifest.read(source, name)
    target = out or source
    require_replaceable(target)
    if source.resolve() in target.resolve().parents:
        raise DarsrError(str(target), f"lies in {source}, whose copy it is to be", "choose another place with -o")
    if target.resolve() != source.resolve() or own_engines(source):
        claim(target)  # a bundle without engines only gains some
    with atomic_folder(target) as folder:
        _copy(source, folder)
        engines = add_engines(folder, library, options, target, say, report, floor_db)
    return target, engines


def require_replaceable(target: Path) -> None:
    """Refuse to put a bundle in the place of a folder that is none.

    Raises:
        DarsrError: it holds other things, is read-only, or is the folder that this runs in.
    """
    if not target.is_dir():
        return
    way_out = "choose another place with -o"
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise DarsrError(str(target), "is replaced as a whole, and this command runs in it", f"{way_out}, or leave it")
    if any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise DarsrError(str(target), "is a folder with other things in it", way_out)
    if not os.access(target, os.W_OK):
        raise DarsrError(str(target), "is read-only", way_out)


def engines_row(name: str, engines: dict[str, EngineFacts]) -> dict:
    """What ``darsr export --json`` says of a bundle's engines, beside what it says of the bundle."""
    any_of = engines["backbone"]
    layers = sum((Counter(facts.layers) for facts in engines.values()), Counter())
    parities = [facts.device_parity_psnr_db for facts in engines.values()]
    return {
        "format": name,
        "tensorrt": any_of.tensorrt,
        "shapes": str(any_of.shapes),
        "targets": list(any_of.targets),
        "gpu": any_of.gpu,
        "device_parity_psnr_db": min((parity for parity in parities if parity is not None), default=None),
        "layers": dict(sorted(layers.items())),
        "engines": {graph: {"bytes": facts.bytes, "sha256": facts.sha256} for graph, facts in engines.items()},
    }


def _copy(source: Path, folder: Path) -> None:
    """All of a bundle, with whatever else somebody put there, but its engines. A read-only one gives a copy that is not."""
    engines = [own_engine(source, graph) for graph in GRAPHS]
    engines += [sidecar_path(engine) for engine in engines]
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path not in engines:
            shutil.copy2(path, folder / path.name)


def _build(
    manifest: Manifest, files: dict[str, bytes], library: Library, options: BuildOptions, report: Report | None
) -> Built:
    built: Built = {}
    for graph, onnx in files.items():
        data, facts = build_engine(onnx, manifest.spec, library, options, f"engine of {graph}", report, graph)
        built[graph] = data, replace(facts, sha256=hash_bytes(data), bytes=len(data))
    return built


def _compared(
    folder: Path, manifest: Manifest, built: Built, library: Library, name: Path, say: Say, floor_db: float | None
) -> Built:
    """The engines that run the bundle's own adapter (the backbone alone without one), compared; the others as they are."""
    path = manifest.own_adapter(folder)
    adapter = None if path is None else Adapter.load(path)
    with TrtBundle(folder, library) as bundle:
        gpu, target = bundle.device.name, bundle.device.target
        while lacking := bundle.lacks(bind_adapter(adapter, manifest, str(name), str(path))):
            bundle.open(lacking[0], *built[lacking[0]])
        ran = [graph for graph in built if bundle.holds(graph)]
        with bundle.engine(adapter, name) as engine:
            parity = bundle_parity(engine, folder, adapter, str(name), say, floor_db)
    for graph in ran:
        data, facts = built[graph]
        built[graph] = data, replace(facts, device_parity_psnr_db=parity)
        engine_cache.record_verification(engines_folder(), facts.sha256, gpu, target, parity, say)
    return built
