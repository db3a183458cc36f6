"""``tensorrt.plugin`` without TensorRT: takes what is registered, refuses what its documentation forbids, calls it as a build does.

Written from the documentation of 10.9 to 11.3: which functions there are, what their parameters and annotations must be, that
descriptions cannot be changed, that sizes are symbols (at first without any value), and that a compiled kernel gets its inputs,
then 32-bit integers, then its outputs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import get_args, get_origin

import onnx
from onnx import shape_inference

RESERVED = {"", "trt", "tensorrt", "std"}
_SIZES = (1, 1, 24, 32)  # for which kernels are launched here


class SymInt32:
    """A 32-bit integer that is known when the engine runs."""

    def __init__(self, value: int | SymInt32 | None = None) -> None:
        if not isinstance(value, int | SymInt32 | None):
            raise ValueError(f"{value!r} is no integer expression")
        self.value = value.value if isinstance(value, SymInt32) else value

    def _with(self, other: int | SymInt32, how: Callable[[int, int], int]) -> ShapeExpr:
        other = SymInt32(other)
        known = None not in (self.value, other.value)
        return ShapeExpr(how(self.value, other.value) if known else None)

    def __mul__(self, other: int | SymInt32) -> ShapeExpr:
        return self._with(other, lambda a, b: a * b)

    def __bool__(self) -> bool:
        raise ValueError("a symbol has no value that could be tested")


class ShapeExpr(SymInt32):
    """One side of a tensor."""


class SymExprs:
    def __init__(self, values: list[SymInt32]) -> None:
        self._values = values

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, index: int) -> SymInt32:
        return self._values[index]


class SymIntExprs(SymExprs):
    @classmethod
    def from_tuple(cls, values) -> SymIntExprs:
        return cls(list(values))


_LAUNCH = {"grid_x": 1, "grid_y": 1, "grid_z": 1, "block_x": 1, "block_y": 1, "block_z": 1, "shared_mem": 0}


class KernelLaunchParams:
    def __init__(self) -> None:
        for name, value in _LAUNCH.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: int | SymInt32) -> None:
        if name not in _LAUNCH:
            raise AttributeError(f"KernelLaunchParams object has no attribute '{name}'")
        self.__dict__[name] = SymInt32(value)


class TensorDesc:
    def __init__(self, sizes: list[ShapeExpr], dtype: object) -> None:
        self.shape_expr, self.dtype = SymExprs(sizes), dtype
        self._immutable = True

    def like(self) -> TensorDesc:
        return TensorDesc(list(self.shape_expr), self.dtype)

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_immutable", False):
            raise ValueError("Cannot modify immutable TensorDesc")
        super().__setattr__(name, value)


class AutoTuneCombination:
    """``FP32|FP16`` at every position: both follow the same bar."""

    def __init__(self, io_types: str, layouts: str = "LINEAR") -> None:
        columns = [part.strip().split("|") for part in io_types.split(",")]
        if len({len(column) for column in columns}) != 1:
            raise ValueError(f"Type/Format combinations {io_types} contain illegal dependent lengths")
        if layouts != "LINEAR":
            raise ValueError("this kernel reads rows")
        self.combinations = list(zip(*columns))


@dataclass
class Launch:
    """What TensorRT would keep of a kernel, and how it would launch it for an image of one size."""

    name: bytes
    ptx: bytes
    grid: tuple[int, int, int]
    threads: int
    shared: int
    integers: list[int]


@dataclass
class _Plugin:
    register: Callable
    tensors: list[str]
    autotune: Callable | None = None
    aot_impl: Callable | None = None


@dataclass
class Registry:
    """Plugins by their id, and the kernels that were asked for."""

    bodies: dict[str, Callable[[int], onnx.FunctionProto]]
    plugins: dict[str, _Plugin] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)

    def imported(self, model: onnx.ModelProto, types: dict[int, object]) -> onnx.ModelProto:
        """What the parser makes of nodes without a body: the kernel stands for them, and here the body does again.

        Raises:
            LookupError: no plugin of the name and namespace, or not asked for as one that is compiled ahead of time.
        """
        functions = {(f.domain, f.name) for f in model.functions}
        nodes = [
            n for n in model.graph.node if n.domain not in ("", "ai.onnx") and (n.domain, n.op_type) not in functions
        ]
        expanded = onnx.ModelProto.FromString(model.SerializeToString())
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        for plugin in {self._named(node) for node in nodes}:
            expanded.functions.append(self.bodies[plugin](opset))
        for node in expanded.graph.node:
            if node.domain not in ("", "ai.onnx"):
                del node.attribute[:]  # the parser's own
        graph = shape_inference.infer_shapes(onnx.inliner.inline_local_functions(expanded)).graph
        known = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        for node in nodes:
            kinds = [types[known[name]] for name in (*node.input, *node.output)]
            self.launches.append(self.launch(self._named(node), kinds))
        return expanded

    def launch(self, plugin: str, kinds: list[object]) -> Launch:
        """A build's calls, in their order; every result is checked."""
        known, inputs = self.plugins[plugin], len(self.plugins[plugin].tensors)
        for sizes in ([None] * 4, list(_SIZES)):  # types are asked for before there are sizes
            given = [TensorDesc([ShapeExpr(size) for size in sizes], kind) for kind in kinds[:inputs]]
            result = known.register(*given)
            assert isinstance(result, TensorDesc) and result not in given, "a description must not be an input's own"
            assert [result.dtype] == kinds[inputs:], "the result has another type than the network says"
        outputs = (result,)
        names = {"FLOAT": "FP32", "HALF": "FP16"}
        offered = [one for each in known.autotune(*given, outputs) for one in each.combinations]
        assert tuple(names[kind.name] for kind in kinds) in offered, f"{kinds} is not among {offered}"
        name, ptx, launch, integers = known.aot_impl(*given, outputs, 0)
        assert isinstance(name, bytes | str) and isinstance(ptx, bytes | str)
        assert isinstance(launch, KernelLaunchParams) and isinstance(integers, SymExprs)
        assert all(isinstance(one, SymInt32) for one in integers), "SymInt32 alone is taken"
        _check_entry(ptx.decode(), name.decode(), inputs, len(list(integers)), len(outputs))
        grid = tuple(getattr(launch, f"grid_{axis}").value for axis in "xyz")
        assert None not in grid and (launch.block_y.value, launch.block_z.value) == (1, 1)
        return Launch(name, ptx, grid, launch.block_x.value, launch.shared_mem.value, [i.value for i in integers])

    def _named(self, node: onnx.NodeProto) -> str:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        plugin = f"{given.get('plugin_namespace', b'').decode()}::{node.op_type}"
        if plugin not in self.plugins or not given.get("aot"):
            raise LookupError(f"Plugin not found: {plugin}")
        return plugin


def _check_entry(ptx: str, name: str, inputs: int, integers: int, outputs: int) -> None:
    """The kernel's parameters are what it will be given; pointers behind them become null."""
    (found,) = re.findall(rf"\.visible \.entry {name}\((.*?)\)", ptx, re.S)
    widths = re.findall(r"\.param \.u(32|64)", found)
    expected = ["64"] * inputs + ["32"] * integers + ["64"] * outputs
    assert widths[: len(expected)] == expected and set(widths[len(expected) :]) <= {"64"}, widths


def fake_plugin_module(bodies: dict[str, Callable[[int], onnx.FunctionProto]]) -> ModuleType:
    """``tensorrt.plugin``; what was registered is in its ``registry``."""
    trtp = ModuleType("tensorrt.plugin")
    registry = trtp.registry = Registry(bodies)
    trtp.op = SimpleNamespace()
    for public in (
        SymInt32, ShapeExpr, SymExprs, SymIntExprs, KernelLaunchParams, TensorDesc, AutoTuneCombination,
    ):  # fmt: skip
        setattr(trtp, public.__name__, public)

    def cdiv(first: SymInt32, second: int) -> ShapeExpr:
        return first._with(second, lambda a, b: -(-a // b))

    def register(plugin: str) -> Callable:
        namespace, name = plugin.split("::")

        def decorate(function: Callable) -> Callable:
            if namespace in RESERVED or "." in plugin:
                raise ValueError(f"Provided namespace {namespace} is a reserved namespace")
            if plugin in registry.plugins:
                raise ValueError(f"already has a definition for '{name}'")
            signature = inspect.signature(function)
            for parameter in signature.parameters.values():
                _require(parameter.annotation, TensorDesc)
            _require(signature.return_annotation, TensorDesc)
            registry.plugins[plugin] = _Plugin(function, list(signature.parameters))
            setattr(trtp.op, namespace, SimpleNamespace(**{name: function}))
            return function

        return decorate

    def further(slot: str, tail: list[str], returned: Callable[[object], None]) -> Callable:
        def named(plugin: str) -> Callable:
            def decorate(function: Callable) -> Callable:
                if plugin not in registry.plugins:
                    raise ValueError(f"Plugin {plugin} is not registered.")
                known, signature = registry.plugins[plugin], inspect.signature(function)
                if list(signature.parameters) != [*known.tensors, *tail]:
                    raise ValueError(f"Signature '{signature}' does not match the expected input arg schema")
                for name, parameter in signature.parameters.items():
                    if name == "outputs":
                        _require_all(parameter.annotation, tuple, [TensorDesc])
                    else:
                        _require(parameter.annotation, int if name == "tactic" else TensorDesc)
                returned(signature.return_annotation)
                setattr(known, slot, function)
                return function

            return decorate

        return named

    def kernel(annotation: object) -> None:
        _require_all(annotation, tuple, [None, None, KernelLaunchParams, SymExprs])
        for text in get_args(annotation)[:2]:
            if {*(get_args(text) or (text,))} - {str, bytes}:
                raise ValueError(f"Return annotation is '{text}'. Expected 'str' or 'bytes'.")

    trtp.cdiv, trtp.register = cdiv, register
    trtp.autotune = further("autotune", ["outputs"], lambda a: _require_all(a, list, [AutoTuneCombination]))
    trtp.aot_impl = further("aot_impl", ["outputs", "tactic"], kernel)
    return trtp


def _require(annotation: object, kind: type) -> None:
    if not (inspect.isclass(annotation) and issubclass(annotation, kind)):
        raise ValueError(f"annotation {annotation!r} is not {kind.__name__}")


def _require_all(annotation: object, origin: type, kinds: list[type | None]) -> None:
    parts = get_args(annotation)
    if get_origin(annotation) is not origin or len(parts) != len(kinds):
        raise ValueError(f"annotation {annotation!r} is not {origin.__name__} of {len(kinds)}")
    for part, kind in zip(parts, kinds):
        if kind is not None:
            _require(part, kind)
