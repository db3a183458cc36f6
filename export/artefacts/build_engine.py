"""Build a TensorRT engine from an ONNX file: one interface for both families, with and without builder flags.

The file is typed, so the network is strongly typed: every version from 10.0 on has that, 11 has nothing else, and what
builder flags do to a file that is narrow already is not reliable (NVIDIA/TensorRT #3941). Before 10.12 flags are the second
attempt, for what a version's typed builder does not know.

Nothing here needs PyTorch or onnx: a device that has TensorRT alone builds from an ONNX file too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine_file import EngineFacts
from darsr_deploy.trt.library import Library, check_targets, make_logger
from darsr_deploy.trt.shapes import DEFAULT_SHAPES, Shapes, fixed_shapes, input_shape

Report = Callable[[dict], None]  # told {"phase", "step", "steps"}
Progress = Callable[[str], contextlib.AbstractContextManager[Report]]  # from a title to what is told of steps
# Builder flags that allow a type, for versions that are not strongly typed. Where a file says float32, float32 is obeyed.
_FLAGS = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8",)}
_NARROW = {"HALF", "BF16", "INT8"}
# What the weighted layers of a file of each precision must have among their types, and nothing else that is narrow.
_EXPECTED = {"fp32": set(), "fp16": {"HALF"}, "bf16": {"BF16"}, "int8": {"INT8"}}


@contextlib.contextmanager
def no_progress(title: str) -> Iterator[Report]:
    """Show nothing."""
    yield lambda entry: None


class CannotBuild(DarsrError):
    """TensorRT does not support something in a model, or runs out of memory while building it."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of an engine build.

    Attributes:
        shapes: sizes it takes; a static one is built without a profile.
        targets: for ``trt-rtx``: compute capabilities such as ``sm_86``; empty for the library's own choice (8.0 and
            newer). ``trt`` builds for this machine's GPU and takes none.
        workspace_mb: most scratch memory a layer may use; 0 for no limit. A Jetson shares its memory with the CPU.
    """

    shapes: Shapes = DEFAULT_SHAPES
    targets: tuple[str, ...] = ()
    workspace_mb: int = 0


def build_engine(
    onnx: bytes,
    spec: ModelSpec,
    library: Library,
    options: BuildOptions,
    what: str,
    report: Report | None = None,
    *,
    graph: str = "",
) -> tuple[bytes, EngineFacts]:
    """Parse an ONNX file, check the types of the parsed network, and build the engine.

    Args:
        onnx: an ONNX file of this toolkit, typed: the precision is in it.
        spec: its metadata.
        what: name of the result, for error lines.
        report: told ``{"phase", "step", "steps"}`` while the builder works.
        graph: the file is this graph of a runtime bundle, and ``spec`` the bundle's.

    Returns:
        ``(engine, facts)``; the facts lack hash and size, which :func:`darsr_deploy.trt.engine_file.write_engine` adds.

    Raises:
        DarsrError: an unknown target, no GPU where one is needed, a network that TensorRT cannot parse or build, or one
            that has another precision than asked for.
        KeyboardInterrupt: Ctrl-C while building; the builder is stopped.
    """
    check_targets(library, options.targets)
    options = replace(options, shapes=fixed_shapes(spec) or options.shapes)
    device = None
    if library.family.name == "trt":
        with Device() as device:  # building needs the GPU; the error says so better than the builder's
            pass
    typed, how = True, {"report": report, "graph": graph}
    try:
        engine, layers = _build(onnx, spec, library, options, what, **how)
    except DarsrError:
        if not library.has_flags:
            raise
        typed = False
        engine, layers = _build(onnx, spec, library, options, what, typed=False, **how)
    return engine, EngineFacts(
        spec=spec,
        family=library.family.name,
        tensorrt=library.version,
        shapes=options.shapes,
        onnx_sha256=hash_bytes(onnx),
        graph=graph,
        targets=options.targets,
        gpu=device.name if device else "",
        target=device.target if device else "",
        typed=typed,
        layers=layers,
        workspace_mb=options.workspace_mb,
    )


def _build(
    onnx: bytes,
    spec: ModelSpec,
    library: Library,
    options: BuildOptions,
    what: str,
    *,
    report: Report | None,
    graph: str,
    typed: bool = True,
) -> tuple[bytes, dict[str, int]]:
    """Build once, with the types of the file as they are or as builder flags; return the engine and the parsed layers."""
    trt, title = library.module, f"{library.family.title} {library.version}"
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(typed << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        why = parser.get_error(0).desc() if parser.num_errors else logger.why()
        raise CannotBuild(what, f"{title} cannot parse the model ({why})", "use --engine ort")
    layers = layer_types(network)
    config = builder.create_builder_config()
    if typed:
        require_types(network, layers, spec.precision, what)
    else:
        _set_flags(trt, network, config, spec.precision)
    _set_shapes(builder, network, config, options.shapes, spec.scale, graph)
    _configure(library, config, options)
    monitor = _monitor(trt, report) if report is not None else None
    if monitor is not None:
        config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        way_out = "limit its memory with --workspace MB and smaller --shapes, or use --engine ort"
        raise CannotBuild(what, f"{title} cannot build it ({logger.why()})", way_out)
    return bytes(engine), layers


def layer_types(network: object) -> dict[str, int]:
    """Count the layers of a parsed network by kind and output type: ``{"CONVOLUTION HALF": 26, ...}``."""
    found: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            found[f"{layer.type.name} {layer.get_output(0).dtype.name}"] += 1
    return dict(sorted(found.items()))


def require_types(network: object, layers: dict[str, int], precision: str, what: str) -> None:
    """Require the precision asked for inside the parsed network, and float32 inputs and outputs.

    Raises:
        DarsrError: another precision, which would be an fp32 engine under an fp16 name.
    """
    narrow = {kind.split()[1] for kind in layers} & _NARROW
    weighted = {kind.split()[1] for kind in layers if kind.split()[0] in ("CONVOLUTION", "DECONVOLUTION", "QUANTIZE")}
    expected = _EXPECTED[precision]
    if narrow != expected or (weighted and not expected <= weighted):
        raise DarsrError(
            what, f"the parsed network computes in {sorted(narrow) or 'FLOAT'}, asked for {precision}", "report this"
        )
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    wrong = [f"{t.name} {t.dtype.name}" for t in tensors if t.dtype.name != "FLOAT"]
    if wrong:
        raise DarsrError(what, f"inputs and outputs are not float32: {', '.join(wrong)}", "report this")


def _set_shapes(builder: object, network: object, config: object, shapes: Shapes, scale: int, graph: str) -> None:
    """Give inputs of one size that size, and all others one optimization profile."""
    profile = None
    for tensor in [network.get_input(i) for i in range(network.num_inputs)]:
        name, declared = tensor.name, tuple(tensor.shape)
        each = (shapes.min, shapes.opt, shapes.max)
        sizes = [input_shape(name, declared, size, scale, graph) for size in each]
        if sizes[0] == sizes[2]:
            tensor.shape = sizes[0]
            continue
        profile = profile or builder.create_optimization_profile()
        profile.set_shape(name, *sizes)
    if profile is not None:
        config.add_optimization_profile(profile)


def _configure(library: Library, config: object, options: BuildOptions) -> None:
    trt = library.module
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default from Ampere on: fp32 would have 10 bits
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the built layers' types can be read
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if resize := getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None):
        config.set_preview_feature(resize, True)  # activations as large as the size that runs
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper().replace("_", "")), index)


def _set_flags(trt: object, network: object, config: object, precision: str) -> None:
    """Allow the precision's types, and hold every layer to the type that the file gives its output.

    A weakly typed network takes the file's types as hints. Where its parser tells only float32, nothing is held.
    """
    for flag in _FLAGS[precision]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    if not any(kind.split()[1] in _NARROW for kind in layer_types(network)):
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    floats = (trt.DataType.FLOAT, trt.DataType.HALF, trt.DataType.BF16)
    # Quantize, dequantize, cast and constants have no precision of their own to choose.
    free = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE, trt.LayerType.CAST, trt.LayerType.CONSTANT)
    for layer in layers:
        kind = layer.get_output(0).dtype if layer.num_outputs else None
        if kind in floats and layer.type not in free and not _between_scales(trt, layer):
            layer.precision = kind
            layer.set_output_type(0, kind)


def _between_scales(trt: object, layer: object) -> bool:
    """Return whether a convolution computes in int8: its weights come from a dequantize layer, and float32 would undo that."""
    return layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION) and layer.num_inputs > 1


def _monitor(trt: object, report: Report):
    """Make a progress monitor of the builder's outermost phase."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._steps[name] = steps
                self._tell(name, 0)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self._steps:
                self._tell(name, step + 1)
            return not self.interrupted  # False stops the builder

        def phase_finish(self, name: str) -> None:
            if name in self._steps:
                self._tell(name, self._steps.pop(name))

        def _tell(self, name: str, step: int) -> None:
            try:
                report({"phase": name.lower(), "step": step, "steps": self._steps.get(name, step)})
            except KeyboardInterrupt:  # must not pass through the library's own frames
                self.interrupted = True

    return Monitor()
