"""An adapter in a runtime bundle in TensorRT: with the bundle's own engines, else those of the cache, else built ones.

A bundle's own engines were built ahead of time, mostly on another machine. Each is used where it fits: the library's family and
version, the GPU, the graph that the manifest lists, and the rule of :mod:`.trust`. The first time on a GPU what they
compute is compared with ONNX Runtime, as a built one is; that it was is noted on this machine, for a bundle may be read-only.
"""

from __future__ import annotations

import atexit
import contextlib
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..bundle.adapter_inputs import AdapterInputs, bind_adapter, load_adapter
from ..bundle.graphs import GRAPHS
from ..bundle.manifest import MANIFEST, Manifest
from ..errors import DarsrError, OutOfMemory
from ..files.adapter import Adapter
from ..files.hashing import hash_file
from . import cache as engine_cache
from .bundle import TrtBundle, TrtBundleEngine
from .cache import EngineCache, engine_key
from .engine_file import SUFFIX, EngineFacts, read_engine, write_engine
from .library import Library, require_gpu
from .parity import bundle_parity
from .shapes import DEFAULT_SHAPES, Shapes
from .trust import require_trust, trust

Say = Callable[[str], None]
Built = dict[str, tuple[bytes, EngineFacts]]  # by graph


class Builder(Protocol):
    """Builds engines that are nowhere, for the GPU at hand. ``export.artefacts`` has one: this package builds none."""

    def build_graphs(self, bundle: TrtBundle, files: dict[str, bytes], shapes: Shapes) -> Built:
        """Build the engines of a bundle's graphs from their ONNX files."""
        ...

    def build_model(self, onnx: Path, target: Path, library: Library, *, shapes: Shapes, key: str) -> object:
        """Build the engine of a model file, check it and write it to ``target``; ``key`` is its name in the cache."""
        ...


class _Differs(DarsrError):
    """Engines do not compute what they should."""


@dataclass(frozen=True)
class _Place:
    """Where an adapter is opened: the GPU, what is open on it, and where further engines come from."""

    bundle: TrtBundle
    gpu: str
    target: str
    cache: EngineCache
    say: Say
    builder: Builder | None


def own_engine(folder: Path, graph: str) -> Path:
    """Return where a bundle's own engine of a graph lies, beside its ONNX file; it need not exist."""
    return folder / f"{graph}{SUFFIX}"


def own_engines(folder: Path) -> list[Path]:
    """Return the engines that a bundle holds."""
    return [path for graph in GRAPHS if (path := own_engine(folder, graph)).is_file()]


def open_in_tensorrt(
    folder: Path,
    adapter: Path | None,
    library: Library,
    cache: EngineCache,
    say: Say,
    builder: Builder | None = None,
    *,
    trust: bool = False,
) -> TrtBundleEngine:
    """Open an adapter in a bundle on the GPU at hand. The next adapter only binds its weights to the same engines.

    The bundle stays open for the next adapter of this process, at least until another one is opened and no engine of it is in
    use (:func:`close_bundles`). Threads open one after the other.

    Args:
        adapter: its file; None for the backbone alone.
        say: told why an engine that is there is not used, and what is built.
        builder: makes engines that are nowhere; None: a missing one is an error.
        trust: load the bundle's own engines even if they were not built on this machine.

    Raises:
        DarsrError: no GPU; an adapter that does not fit; an engine that is missing, cannot be built, or computes something
            else than ONNX Runtime (then none is kept).
    """
    gpu, target = require_gpu(library)
    what = "the backbone" if adapter is None else str(adapter)
    loaded, digest = (None, "") if adapter is None else load_adapter(adapter)
    inputs = bind_adapter(loaded, Manifest.load(folder), str(folder), what)
    with _opening:
        bundle = _open_bundle(folder, library, gpu, target, cache.folder, trust)
        place = _Place(bundle, gpu, target, cache, say, builder)

        def bound() -> TrtBundleEngine:
            return bundle.engine(loaded, what, digest)

        own = _open_own(place, inputs, trust)
        try:
            return _complete(place, inputs, loaded, bound, own)
        except _Differs as error:
            if not own:
                raise
            say(f"{folder}: its own engines are not used ({error.args[1]})")
            return _complete(place, inputs, loaded, bound, {})


def close_bundles() -> None:
    """Give back what opened bundles hold on the device. Their engines cannot be used any more."""
    with _opening:
        while _kept:
            _kept.popitem()[1].close()


_kept: dict[tuple, TrtBundle] = {}  # the one that was opened last, and others whose engines are in use
_opening = threading.RLock()
atexit.register(close_bundles)  # the libraries want their objects freed while they are still there


def _open_bundle(folder: Path, library: Library, gpu: str, target: str, jit_folder: Path, trust: bool) -> TrtBundle:
    key = (folder.resolve(), hash_file(folder / MANIFEST), library.family.name, library.version, gpu, target, trust)
    if key not in _kept:
        for other in [other for other, bundle in _kept.items() if not bundle.users]:
            _kept.pop(other).close()
        _kept[key] = TrtBundle(folder, library, jit_folder=jit_folder)
    return _kept[key]


def _open_own(place: _Place, inputs: AdapterInputs, trust: bool) -> dict[str, EngineFacts]:
    """Open what a bundle brings for an adapter, as far as it fits; return the facts of what was opened now, by graph."""
    bundle, tried = place.bundle, set[str]()
    opened: dict[str, EngineFacts] = {}
    refused: dict[str, list[str]] = {}
    if not own_engines(bundle.folder):
        return opened
    while untried := [graph for graph in bundle.lacks(inputs) if graph not in tried]:
        graph = untried[0]  # what is lacking depends on the sizes of what is open
        tried.add(graph)
        path = own_engine(bundle.folder, graph)
        try:
            data, facts = read_engine(path)
            if not trust:
                require_trust(path, facts.sha256)
            bundle.open(graph, data, facts)
            opened[graph] = facts
        except DarsrError as error:
            refused.setdefault("; ".join(error.args[1:]), []).append(graph)
    for why, graphs in refused.items():
        place.say(f"{bundle.folder}: its own engine of {', '.join(graphs)} is not used ({why})")
    return opened


def _complete(
    place: _Place,
    inputs: AdapterInputs,
    adapter: Adapter | None,
    bound: Callable[[], TrtBundleEngine],
    own: dict[str, EngineFacts],
) -> TrtBundleEngine:
    """Open what is still lacking from the cache, or build it; bind the adapter, and compare what never ran here.

    Raises:
        _Differs: on the device something else is computed. What was opened of ``own`` or built now is closed again.
    """
    bundle, cache = place.bundle, place.cache
    shapes = bundle.shapes or DEFAULT_SHAPES
    files = {graph: bundle.manifest.read(bundle.folder, f"{graph}.onnx") for graph in bundle.lacks(inputs)}
    precision, library = bundle.manifest.spec.precision, bundle.library
    keys = {
        graph: engine_key(data, precision, library, shapes, gpu=place.gpu, target=place.target)
        for graph, data in files.items()
    }
    with contextlib.ExitStack() as locks:
        # in the order of their names, so that two processes never wait for each other
        places = {
            graph: locks.enter_context(cache.locked(key))
            for graph, key in sorted(keys.items(), key=operator.itemgetter(1))
        }
        missing = [graph for graph in files if not _open_cached(place, graph, places[graph], keys[graph])]
        with contextlib.ExitStack() as undo:  # what was not compared and kept must not run the next image
            undo.callback(_drop, bundle, [*own, *missing])
            built = _build_missing(place, {graph: files[graph] for graph in missing}, shapes)
            for graph, (data, facts) in built.items():
                bundle.open(graph, data, facts)
            try:
                engine = bound()
                undo.callback(engine.__exit__)
                new = [facts for facts in own.values() if not _is_verified(place, facts)]
                parity = _check_parity(place, engine, adapter) if built or new else None
            except OutOfMemory:
                raise
            except DarsrError as error:
                raise _Differs(*error.args) from error
            for graph, (data, facts) in built.items():
                facts = replace(facts, cache_key=keys[graph], device_parity_psnr_db=parity)
                trust(write_engine(places[graph], data, facts).sha256)
            for facts in new:
                engine_cache.record_verification(cache.folder, facts.sha256, place.gpu, place.target, parity, place.say)
            undo.pop_all()
    if built:
        cache.shrink(keep=keys[missing[0]])
    return engine


def _open_cached(place: _Place, graph: str, path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    try:
        data, facts = read_engine(path)
        require_trust(path, facts.sha256)
        place.bundle.open(graph, data, facts)
    except DarsrError as error:
        place.cache.report_unusable(key, error, place.say, place.builder is not None)
        return False
    place.cache.used(key)
    return True


def _build_missing(place: _Place, files: dict[str, bytes], shapes: Shapes) -> Built:
    if not files:
        return {}
    if place.builder is not None:
        title = f"{place.bundle.library.family.title} engines of {place.bundle.manifest.spec.backbone}"
        place.say(f"building the {title} for {place.gpu}, {shapes} (once for all adapters; kept in the cache)")
        return place.builder.build_graphs(place.bundle, files, shapes)
    folder, family = place.bundle.folder, place.bundle.library.family.name
    command = f"darsr export {folder} --format {family}"
    command += f" --target {place.target}" if family == "trt-rtx" else ""
    command += " --overwrite" if own_engines(folder) else ""
    why = f"there is no engine of {', '.join(files)} that can be used on {place.gpu}"
    raise DarsrError(str(folder), why, f"build them: {command}")


def _is_verified(place: _Place, facts: EngineFacts) -> bool:
    return engine_cache.is_verified(place.cache.folder, facts.sha256, place.gpu, place.target)


def _check_parity(place: _Place, engine: TrtBundleEngine, adapter: Adapter | None) -> float | None:
    folder = place.bundle.folder
    return bundle_parity(engine, folder, adapter, str(folder), place.say)


def _drop(bundle: TrtBundle, graphs: list[str]) -> None:
    for graph in filter(bundle.holds, graphs):
        bundle.drop(graph)
