"""A runtime bundle in TensorRT: its engines from the cache, built where there are none, compared before they are kept."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path

from darsr_deploy.adapter import Adapter
from darsr_deploy.bundle import MANIFEST, Bundle, Manifest
from darsr_deploy.engine_cache import EngineCache
from darsr_deploy.engine_file import EngineFacts, read_engine, write_engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.fitted import fit, graphs_of
from darsr_deploy.ort_engine import installed_runtimes
from darsr_deploy.tiled import TiledEngine
from darsr_deploy.trt_bundle import TrtBundle, TrtBundleEngine
from darsr_deploy.trt_library import Library
from darsr_deploy.trust import require_trust, trust

from .device_check import Reference, pictures, require_built_type, require_device_parity
from .engines import Say, engine_key, require_gpu
from .to_tensorrt import BuildOptions, Report, build_engine

Built = dict[str, tuple[bytes, EngineFacts]]  # by graph
_TEST_TILE = 24  # LR pixels: several tiles in a test picture


def open_in_tensorrt(
    folder: Path,
    adapter: Path | None,
    library: Library,
    cache: EngineCache,
    say: Say,
    report: Report | None = None,
) -> TrtBundleEngine:
    """An adapter in a bundle, on the GPU at hand. Engines are built once; another adapter only binds its weights.

    The bundle stays open for the next adapter of this process (:func:`close_bundle`). An engine in the cache that cannot
    be loaded (damaged, another driver) is built again.

    Args:
        adapter: its file; None for the backbone alone.

    Raises:
        DarsrError: no GPU; an adapter that does not fit; an engine that cannot be built, or that computes something else
            than ONNX Runtime (then none is kept).
    """
    gpu, target = require_gpu(library)
    options = BuildOptions(targets=(target,) if library.family.name == "trt-rtx" else ())
    loaded = None if adapter is None else Adapter.load(adapter)
    what, digest = ("the backbone", "") if adapter is None else (str(adapter), _sha256(adapter))
    needed = graphs_of(fit(loaded, Manifest.load(folder), str(folder), what))
    bundle = _opened(folder, library, gpu, target, cache.folder)
    files = {graph: bundle.manifest.read(folder, f"{graph}.onnx") for graph in needed if not bundle.holds(graph)}
    precision = bundle.manifest.spec.precision
    keys = {graph: engine_key(data, precision, library, options, gpu, target) for graph, data in files.items()}
    with contextlib.ExitStack() as locks:
        # in the order of their names, so that two processes never wait for each other
        places = {graph: locks.enter_context(cache.locked(key)) for graph, key in sorted(keys.items(), key=_second)}
        missing = [graph for graph in files if not _from_cache(bundle, graph, places[graph], keys[graph], cache, say)]
        if not missing:
            return bundle.engine(loaded, what, digest)
        title = f"{library.family.title} engines of {bundle.manifest.spec.backbone}"
        say(f"building the {title} for {gpu}, {options.shapes} (once for all adapters; kept in the cache)")
        with contextlib.ExitStack() as undo:  # what was not compared and kept must not run the next image
            undo.callback(_drop, bundle, missing)
            built = _build(bundle, {graph: files[graph] for graph in missing}, library, options, report)
            engine = bundle.engine(loaded, what, digest)
            undo.callback(engine.__exit__)
            parity = _parity(engine, folder, loaded, say)
            for graph, (data, facts) in built.items():
                facts = replace(facts, cache_key=keys[graph], device_parity_psnr_db=parity)
                trust(write_engine(places[graph], data, facts).sha256)
            undo.pop_all()
        cache.shrink(keep=keys[missing[0]])  # the others are held by this process, and so stay too
        return engine


def close_bundle() -> None:
    """Give back what the bundle that was opened last holds on the device."""
    while _kept:
        _kept.popitem()[1].close()


_kept: dict[tuple, TrtBundle] = {}  # one at most
atexit.register(close_bundle)  # the libraries want their objects freed while they are still there


def _opened(folder: Path, library: Library, gpu: str, target: str, jit_folder: Path) -> TrtBundle:
    key = (folder.resolve(), _sha256(folder / MANIFEST), library.family.name, library.version, gpu, target)
    if key not in _kept:
        close_bundle()
        _kept[key] = TrtBundle(folder, library, jit_folder=jit_folder)
    return _kept[key]


def _from_cache(bundle: TrtBundle, graph: str, path: Path, key: str, cache: EngineCache, say: Say) -> bool:
    if not path.is_file():
        return False
    try:
        data, facts = read_engine(path)
        require_trust(path, facts.sha256)
        bundle.open(graph, data, facts)
    except DarsrError as error:
        say(f"the engine in the cache cannot be used ({error.args[1]}): building it again")
        cache.remove(key)
        return False
    cache.used(key)
    return True


def _drop(bundle: TrtBundle, graphs: list[str]) -> None:
    for graph in filter(bundle.holds, graphs):
        bundle.drop(graph)


def _build(
    bundle: TrtBundle, files: dict[str, bytes], library: Library, options: BuildOptions, report: Report | None
) -> Built:
    built: Built = {}
    for graph, onnx in files.items():
        spec = bundle.manifest.spec
        data, facts = build_engine(onnx, spec, library, options, f"engine of {graph}", report, graph)
        facts = replace(facts, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        bundle.open(graph, data, facts)
        built[graph] = data, facts
    return built


def _parity(engine: TrtBundleEngine, folder: Path, adapter: Adapter | None, say: Say) -> float | None:
    """Worst PSNR in dB against the same adapter in the same bundle in ONNX Runtime, whole and in tiles.

    Raises:
        DarsrError: below the floor, or an engine that was built in another type than asked for.
    """
    what, precision = str(folder), engine.spec.precision
    for graph, information in engine.inspect_each().items():
        require_built_type(information, precision, f"{what}: {graph}")
    if len(installed_runtimes()) != 1:
        say(f"{what}: only the correction was compared on this device (no ONNX Runtime)")
        return None
    reference = Reference("ONNX Runtime", Bundle(folder).engine(adapter).run)
    tests = pictures(engine.shapes, None)
    figures = [require_device_parity(engine, reference, tests, what)]
    if engine.locality.halo is not None:
        figures.append(require_device_parity(_InTiles(engine), reference, tests, what))
    return round(min(figures), 2)


class _InTiles(TiledEngine):
    """An engine that computes test pictures in tiles."""

    def __init__(self, engine: TrtBundleEngine) -> None:
        super().__init__(engine, _TEST_TILE)
        self.device, self.inspect = engine.device, engine.inspect


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _second(item: tuple[str, str]) -> str:
    return item[1]
