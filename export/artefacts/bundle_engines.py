"""Build the TensorRT engines of a runtime bundle's graphs, on demand or ahead of time into the bundle."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from darsr_deploy.bundle.adapter_inputs import bind_adapter
from darsr_deploy.bundle.graphs import GRAPHS, TILE_GRAPHS
from darsr_deploy.bundle.manifest import MANIFEST, Manifest
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.atomic import atomic_folder
from darsr_deploy.files.folders import engines_folder
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.trt import cache as engine_cache
from darsr_deploy.trt.bundle import TrtBundle
from darsr_deploy.trt.engine_file import EngineFacts, sidecar_path, write_engine
from darsr_deploy.trt.library import Library
from darsr_deploy.trt.open_bundle import Built, own_engine, own_engines
from darsr_deploy.trt.parity import bundle_parity
from darsr_deploy.trt.trust import trust

from .build_engine import BuildOptions, Report, build_engine
from .engine import why_not_here

log = logging.getLogger("darsr")


def add_engines(
    folder: Path,
    library: Library,
    options: BuildOptions,
    name: Path,
    *,
    report: Report | None = None,
    floor_db: float | None = None,
) -> dict[str, EngineFacts]:
    """Build an engine for each graph of a bundle and write it beside the graph's ONNX file.

    They are not among the files of the manifest: each has a sidecar that holds its own sha256 and that of its graph, and a
    bundle is the same bundle, and readable by every version, with engines or without. Engines of one size run no tiles, so
    the graphs of tiles get none.

    If this machine has a GPU that they are for, those that run the bundle's own adapter are run and compared.

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
    built = build_graphs(manifest, files, library, options, report)
    why_not = why_not_here(built["backbone"][1])
    if why_not:
        log.info("%s: engines built, not run yet (%s)", name, why_not)
    else:
        built = _compare(folder, built, library, name, floor_db)
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
    *,
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
        engines = add_engines(folder, library, options, target, report=report, floor_db=floor_db)
    return target, engines


def require_replaceable(target: Path) -> None:
    """Refuse to replace a folder that is not a bundle.

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
    """Return what ``darsr export --json`` says of a bundle's engines, beside what it says of the bundle."""
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
    """Copy all of a bundle but its engines, with whatever else lies there; the copy can be written even if it cannot."""
    engines = [own_engine(source, graph) for graph in GRAPHS]
    engines += [sidecar_path(engine) for engine in engines]
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path not in engines:
            shutil.copy2(path, folder / path.name)


def build_graphs(
    manifest: Manifest, files: dict[str, bytes], library: Library, options: BuildOptions, report: Report | None
) -> Built:
    """Build the engines of graphs from their ONNX files; see :func:`.build_engine.build_engine`."""
    built: Built = {}
    for graph, onnx in files.items():
        data, facts = build_engine(onnx, manifest.spec, library, options, f"engine of {graph}", report, graph=graph)
        built[graph] = data, replace(facts, sha256=hash_bytes(data), bytes=len(data))
    return built


def _compare(folder: Path, built: Built, library: Library, name: Path, floor_db: float | None) -> Built:
    """Compare the engines that run the bundle's own adapter (the backbone alone without one); the others stay as they are."""
    with TrtBundle(folder, library) as bundle:
        gpu, target = bundle.device.name, bundle.device.target
        path = bundle.manifest.own_adapter(folder)
        adapter = None if path is None else Adapter.load(path)
        while lacking := bundle.lacks(bind_adapter(adapter, bundle.manifest, str(name), str(path))):
            bundle.open(lacking[0], *built[lacking[0]])
        ran = [graph for graph in built if bundle.holds(graph)]
        with bundle.engine(adapter, name) as engine:
            parity = bundle_parity(engine, folder, adapter, str(name), log.info, floor_db)
    for graph in ran:
        data, facts = built[graph]
        built[graph] = data, replace(facts, device_parity_psnr_db=parity)
        engine_cache.record_verification(engines_folder(), facts.sha256, gpu, target, parity, log.info)
    return built
