"""The arrows between rooms point one way, no files import each other in a circle, and no room is crowded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From below to above: a room, or a module beside the rooms, imports what stands before it and nothing that stands behind it.
ORDERS = {
    "darsr_deploy": [
        *("errors", "install", "memory", "processes", "files", "images", "engines", "bundle"),
        *("degradation", "blind", "adaptation", "trt", "opening", "video", "machine", "bench", "cluster", "console"),
    ],
    "darsr_train": [
        *(
            "degradation",
            "networks",
            "backbones",
            "blind",
            "pipeline",
            "plots",
            "adaptation",
            "runtime",
            "training",
        ),
        *("evaluation", "commands"),
    ],
    "export": [
        *(
            "samples",
            "folding",
            "onnx_graphs",
            "artefacts",
            "shipped",
            "inference",
            "api",
            "plugin",
            "benchmarks",
            "report",
            "page",
            "commands",
            "cli",
        ),
    ],
}
# What a room may import beside itself, where that is less than all that stands before it.
ONLY = {
    "darsr_deploy.video": {"darsr_deploy.errors", "darsr_deploy.install"},
    "export.report": {"export.samples"},
}
PACKAGES = {  # which packages a package may import
    "darsr_deploy": {"darsr_deploy"},
    "darsr_train": {"darsr_deploy", "darsr_train"},
    "export": {"darsr_deploy", "darsr_train", "export"},
}
CONSOLE = "darsr_deploy.console"
USERS_OF_CONSOLE = (CONSOLE, "darsr_train.commands", "export.commands", "export.cli")
MOST_MODULES = 12  # in a folder, its __init__.py not counted
MOST_POSITIONAL = 6  # parameters of a function that may be given without their names, in the packages below
FEW_POSITIONAL = ("darsr_deploy", "export")


@dataclass(frozen=True)
class Arrow:
    """One import: both are modules."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"


def _modules() -> dict[str, Path]:
    found = {}
    for package in ORDERS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(module: str, path: Path) -> Iterator[Arrow]:
    """Every import of a module of ours, those inside functions too; those under ``if TYPE_CHECKING`` are none at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for part in node.body
        for inner in ast.walk(part)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names = [name if (name := f"{origin}.{alias.name}") in MODULES else origin for alias in node.names]
        for name in dict.fromkeys(names):
            if name in MODULES:
                yield Arrow(module, name, node.lineno)
            elif name.split(".")[0] in ORDERS:
                raise AssertionError(f"{module}, line {node.lineno}, imports {name}, which is no module")


ARROWS = [arrow for module, path in MODULES.items() for arrow in _imports(module, path)]


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    """The nodes of some circle, in order; None where there is none."""
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str] | None:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return None
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*way, node]):
                return found
        done.add(node)
        return None

    return next(filter(None, (visit(node, []) for node in sorted(graph))), None)


def _graph(of=lambda module: module) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for arrow in ARROWS:
        if of(arrow.source) != of(arrow.target):
            graph.setdefault(of(arrow.source), set()).add(of(arrow.target))
    return graph


@pytest.mark.parametrize("of", [lambda module: module, _room], ids=["files", "rooms"])
def test_there_is_no_circle(of):
    circle = _circle(_graph(of))
    if circle:
        pairs = set(zip(circle, circle[1:]))
        imports = [str(arrow) for arrow in ARROWS if (of(arrow.source), of(arrow.target)) in pairs]
        pytest.fail("a circle: " + " -> ".join(circle) + "\n" + "\n".join(imports))


@pytest.mark.parametrize("package", ORDERS)
def test_every_room_has_its_place_in_the_order(package):
    rooms = {_room(module).partition(".")[2] for module in MODULES if module.startswith(f"{package}.")}
    assert rooms == set(ORDERS[package])


def test_no_arrow_points_upwards():
    wrong = []
    for arrow in ARROWS:
        source, target = _room(arrow.source), _room(arrow.target)
        package, _, above = source.partition(".")
        if source == target or package != target.partition(".")[0] or not above:
            continue
        order = ORDERS[package]
        if target in ORDERS or order.index(target.partition(".")[2]) > order.index(above):
            wrong.append(f"{arrow}: {target} stands above {source}")
        elif target not in ONLY.get(source, {target}):
            wrong.append(f"{arrow}: {source} may import {', '.join(sorted(ONLY[source]))} alone")
    assert not wrong, "\n".join(wrong)


def test_packages_import_what_is_below_them():
    wrong = [
        str(arrow) for arrow in ARROWS if arrow.target.partition(".")[0] not in PACKAGES[arrow.source.partition(".")[0]]
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_inside_a_package_are_relative():
    """So that ``export`` runs as ``darsr`` too, under which name it is installed."""
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            own = {module.split(".")[0], *(("darsr", "cli") if module.startswith("export") else ())}
            wrong += [f"{module}, line {node.lineno}, imports {name}" for name in names if name.split(".")[0] in own]
    assert not wrong, "\n".join(wrong)


def test_commands_alone_use_the_console():
    wrong = [
        str(arrow) for arrow in ARROWS if _room(arrow.target) == CONSOLE and _room(arrow.source) not in USERS_OF_CONSOLE
    ]
    assert not wrong, "only commands/ and cli.py import the console\n" + "\n".join(wrong)


def test_no_folder_is_crowded():
    folders: dict[Path, int] = {}
    for path in MODULES.values():
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    crowded = {str(f.relative_to(ROOT)): count for f, count in folders.items() if count > MOST_MODULES}
    assert not crowded, f"more than {MOST_MODULES} modules: {crowded}"


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[str]:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_function_takes_many_positional_parameters():
    wrong = [
        f"{module}, line {node.lineno}: {', '.join(_positional(node))}"
        for module, path in MODULES.items()
        if module.partition(".")[0] in FEW_POSITIONAL
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        and len(_positional(node)) > MOST_POSITIONAL
    ]
    assert not wrong, f"more than {MOST_POSITIONAL}; make the rest keyword-only\n" + "\n".join(wrong)


def test_one_function_imports_onnx_runtime():
    """It switches its telemetry off before; other parts of it may be imported once that function has run."""
    found = [
        f"{module}, line {node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "onnxruntime" for alias in node.names)
    ]
    assert len(found) == 1 and found[0].startswith("darsr_deploy.engines.ort,"), found


def test_weights_that_ship_lie_in_one_folder():
    strays = [path for path in ROOT.glob("*/weights") if path.parent.name != "darsr_deploy" and path.parent != ROOT]
    assert not strays, f"move them to darsr_deploy/weights: {strays}"
